//! How many people say yes, who counts, and what happens when nobody answers.

use std::collections::BTreeSet;

use super::scene::{Scene, is_silent};
use crate::engine::decide::Answer;
use crate::engine::event::{Actor, Cause, Emergency, Event};
use crate::engine::input::{Command, Input};
use crate::engine::rollout::Phase;
use crate::sim::sample;
use crate::spec::plan::{Approvals, OnApprovalTimeout, Plan};
use crate::units::Millis;

fn who(name: &str) -> Actor {
    Actor { name: name.to_owned(), note: None }
}

fn electors(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn ask(names: &[&str]) -> Command {
    Command::AskRollback { reason: "checkout fails".to_owned(), electors: electors(names) }
}

fn approve(digest: Option<&str>, names: &[&str]) -> Command {
    Command::Approve { digest: digest.map(str::to_owned), electors: electors(names) }
}

impl Scene {
    #[track_caller]
    fn says(&mut self, name: &str, command: Command, expect: &[&str]) -> Answer {
        self.check(Input::Commanded { by: who(name), command }, expect).answer
    }
}

fn two_people() -> Plan {
    let mut plan = sample::plan();
    plan.manual_rollback.required_approvers = 2;
    plan.manual_rollback.maximum_rollback_time = Millis::from_secs(300);
    plan
}

/// Three regions whose second stage wants two approvals, at its gate.
fn at_a_gate() -> Scene {
    let mut plan = sample::plan();
    plan.stages[1].gate = Some("two others have to approve".to_owned());
    let expires_after = Millis::from_secs(600);
    plan.stages[1].approvals = Some(Approvals { required: 2, expires_after });
    let mut scene = Scene::baking(plan);
    scene.bake();
    assert_eq!(scene.state.phase, Phase::Gated);
    scene
}

const ALL: [&str; 4] = ["ada", "ben", "eve", "kim"];

fn code(answer: &Answer) -> &str {
    match answer {
        Answer::NotCounted { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn s47_a_manual_rollback_asked_by_one_pauses_at_once_and_begins_with_the_second() {
    let mut scene = Scene::baking(two_people());
    let asked = scene.says("ben", ask(&ALL), &["RollbackAsked", "Paused"]);
    assert!(matches!(&asked, Answer::Waiting(what) if what.contains("1 of 2")), "{asked:?}");
    is_silent(&scene);
    assert_eq!(code(&scene.says("ben", approve(None, &ALL), &[])), "same_identity");
    assert_eq!(code(&scene.says("ben", ask(&ALL), &[])), "same_identity");
    assert!(matches!(scene.says("eve", Command::Resume, &[]), Answer::Refused(_)));
    assert_eq!(code(&scene.says("eve", approve(Some("other"), &ALL), &[])), "plan_digest_changed");
    let done = scene.says("eve", approve(Some("sample"), &ALL), &["Approved", "RollbackStarted"]);
    assert_eq!(done, Answer::Accepted);
    let Some(Cause::Asked { by, reason }) = &scene.state.cause else { panic!("no cause") };
    assert_eq!((by.name.as_str(), by.note.as_deref()), ("ben", Some("approved by eve")));
    assert_eq!(reason, "checkout fails");
    scene.is_back();
}

#[test]
fn a_second_request_is_a_vote_and_one_who_lost_the_role_does_not_count() {
    let mut scene = Scene::baking(two_people());
    scene.says("ben", ask(&ALL), &["RollbackAsked", "Paused"]);
    // Ben may not any more: his word is dropped, and eve is alone.
    let without = ["ada", "eve", "kim"];
    let events = ["ApprovalsDropped", "Approved"];
    let said = scene.says("eve", ask(&without), &events);
    assert!(matches!(&said, Answer::Waiting(what) if what.contains("1 of 2")), "{said:?}");
    scene.says("kim", ask(&without), &["Approved", "RollbackStarted"]);
}

#[test]
fn nobody_answers_by_half_of_the_time_and_the_policy_decides() {
    let mut scene = Scene::baking(two_people());
    scene.says("ben", ask(&ALL), &["RollbackAsked", "Paused"]);
    scene.now = scene.now.plus(Millis(149_999));
    scene.check(Input::Woke, &[]);
    scene.now = scene.now.plus(Millis(1));
    scene.check(Input::Woke, &["ApprovalTimedOut", "RollbackStarted"]);
    let Some(Cause::Asked { by, .. }) = &scene.state.cause else { panic!("no cause") };
    assert_eq!(by.note.as_deref(), Some("nobody else answered in time"));
    // Not back after all of the time: said once.
    scene.now = scene.now.plus(Millis::from_secs(150));
    scene.check(Input::Woke, &["RollbackOverdue", "ShiftOverdue"]);

    let mut plan = two_people();
    plan.manual_rollback.on_approval_timeout = OnApprovalTimeout::Hold;
    let mut scene = Scene::baking(plan);
    scene.says("ben", ask(&ALL), &["RollbackAsked", "Paused"]);
    scene.now = scene.now.plus(Millis::from_secs(150));
    let decision = scene.check(Input::Woke, &["ApprovalTimedOut"]);
    assert!(decision.events.contains(&Event::ApprovalTimedOut { proceeds: false }));
    is_silent(&scene);
}

#[test]
fn who_asked_takes_it_back_and_it_goes_on() {
    let mut scene = Scene::baking(two_people());
    scene.says("ben", ask(&ALL), &["RollbackAsked", "Paused"]);
    scene.says("ben", Command::Resume, &["RollbackWithdrawn", "Resumed"]);
    assert_eq!((&scene.state.rollback_asked, &scene.state.paused), (&None, &None));
}

#[test]
fn one_is_enough_where_the_pipeline_says_so_and_proof_of_harm_asks_nobody() {
    let mut scene = Scene::baking(sample::plan());
    scene.says("ben", ask(&ALL), &["RollbackStarted"]);
    let mut scene = Scene::baking(two_people());
    scene.says("ben", Command::Pause { reason: "look".to_owned() }, &["Paused"]);
    scene.says("ada", super::scene::rollback(), &["RollbackStarted"]);
}

#[test]
fn a_stage_waits_for_two_others_and_the_one_who_started_it_never_counts() {
    let mut scene = at_a_gate();
    assert_eq!(code(&scene.says("ada", approve(None, &ALL), &[])), "requester_cannot_approve");
    assert_eq!(code(&scene.says("ben", Command::PromoteApproved, &[])), "needs_approval");
    let said = scene.says("ben", approve(None, &ALL), &["Approved"]);
    assert!(matches!(&said, Answer::Waiting(what) if what.contains("1 of 2")), "{said:?}");
    assert_eq!(code(&scene.says("ben", approve(None, &ALL), &[])), "same_identity");
    scene.says("eve", approve(None, &ALL), &["Approved", "GateOpened", "StepEntered"]);
    assert!(scene.state.votes.is_empty() || scene.state.phase == Phase::Shifting);
}

#[test]
fn a_vote_expires_and_is_void_at_other_weights() {
    let mut scene = at_a_gate();
    scene.says("ben", approve(None, &ALL), &["Approved"]);
    scene.now = scene.now.plus(Millis::from_secs(600));
    scene.says("eve", approve(None, &ALL), &["ApprovalsDropped", "Approved"]);
    // A pause and a resume confirm the weights anew, under another generation.
    scene.says("kim", Command::Pause { reason: "look".to_owned() }, &["Paused"]);
    scene.says("kim", Command::Resume, &["Resumed"]);
    scene.confirm();
    scene.says("ben", approve(None, &ALL), &["ApprovalsDropped", "Approved"]);
    scene.says("kim", approve(None, &ALL), &["Approved", "GateOpened", "StepEntered"]);
}

#[test]
fn approvals_given_while_it_is_paused_open_the_gate_when_it_goes_on() {
    let mut scene = at_a_gate();
    scene.says("ben", approve(None, &ALL), &["Approved"]);
    scene.says("kim", Command::Pause { reason: "look".to_owned() }, &["Paused"]);
    let said = scene.says("eve", approve(None, &ALL), &["Approved"]);
    assert!(matches!(said, Answer::Waiting(_)), "{said:?}");
    is_silent(&scene);
}

#[test]
fn s48_one_person_alone_pauses_rolls_back_or_freezes_and_never_more() {
    let glass = |action| Command::BreakGlass {
        region: sample::region("eu_west_1"),
        action,
        reason: "users cannot pay".to_owned(),
    };
    let mut scene = Scene::baking(two_people());
    scene.says("kim", glass(Emergency::Pause), &["GlassBroken", "Paused"]);
    scene.says("kim", glass(Emergency::Freeze), &["GlassBroken", "Frozen"]);
    scene.says("kim", glass(Emergency::Rollback), &["GlassBroken", "RollbackStarted"]);
    scene.is_back();
    scene.says("ben", Command::Review { note: "was right".to_owned() }, &["Reviewed"]);
}
