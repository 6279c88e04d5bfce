//! Windows and freezes: nothing rises outside of them, and everything goes back.

use super::scene::{Scene, is_silent, rollback};
use crate::engine::decide::Answer;
use crate::engine::input::{Command, Input};
use crate::engine::reason::Reason;
use crate::engine::rollout::Phase;
use crate::engine::verdict::Outcome;
use crate::engine::why::why;
use crate::sim::sample;
use crate::spec::plan::Plan;
use crate::spec::windows::{Freeze, Window};
use crate::units::{Millis, Timestamp};

/// Monday, 23 November 2026, 08:00 UTC.
const MORNING: Timestamp = Timestamp(1_795_420_800_000);

/// Open on weekdays from nine to ten in Berlin.
fn mornings() -> Plan {
    let mut plan = sample::plan();
    plan.policy.windows = vec![Window {
        days: (0..5).collect(),
        from_minute: 9 * 60,
        to_minute: 10 * 60,
        zone: "Europe/Berlin".to_owned(),
        regions: None,
    }];
    plan
}

fn at(plan: Plan, now: Timestamp) -> Scene {
    let mut scene = Scene::new(plan);
    scene.now = now;
    scene
}

fn is_closed(scene: &Scene) -> bool {
    why(&scene.state, scene.now).iter().any(|it| matches!(it, Reason::Closed { .. }))
}

#[test]
fn s13_a_stage_starts_only_where_its_bake_fits_and_a_rollback_proceeds_in_a_freeze() {
    // Half a minute of bake does not fit into the last twenty seconds.
    let mut scene = at(mornings(), MORNING.plus(Millis::from_secs(3_600 - 20)));
    scene.confirm();
    assert_eq!(scene.state.phase, Phase::Preparing);
    assert!(is_closed(&scene), "{:?}", why(&scene.state, scene.now));
    is_silent(&scene);
    // The next morning it does.
    scene.now = MORNING.plus(Millis::from_secs(24 * 3_600));
    scene.check(Input::Woke, &["Prepared", "StepEntered"]);
    scene.confirm();
    assert_eq!(scene.state.phase, Phase::Baking);

    // Proven, but the window is over meanwhile: it stays, and no person raises it either.
    scene.look(&Outcome::Pass, &["Judged", "Polled"]);
    scene.now = scene.now.plus(Millis::from_secs(7_200));
    for _ in 0..8 {
        scene.look(&Outcome::Pass, &["Polled"]);
    }
    assert_eq!((scene.state.phase, scene.state.stage), (Phase::Baking, 0));
    assert!(is_closed(&scene), "{:?}", why(&scene.state, scene.now));
    let by_hand = scene.command(Command::Promote, &[]);
    assert!(matches!(&by_hand, Answer::Refused(why) if why.contains("outside its windows")));
    // Back is always open.
    scene.command(rollback(), &["RollbackStarted"]);
    scene.is_back();
}

#[test]
fn a_freeze_of_one_region_holds_a_stage_that_raises_it_and_no_other() {
    let mut plan = sample::plan();
    plan.policy.freezes = vec![Freeze {
        from: Timestamp(0),
        to: MORNING.plus(Millis::from_secs(3_600)),
        reason: "end of the quarter".to_owned(),
        regions: Some([sample::region("eu_west_1")].into()),
    }];
    // The first stage raises us_east_1 alone.
    let mut scene = at(plan, MORNING);
    scene.confirm();
    scene.confirm();
    assert_eq!(scene.state.phase, Phase::Baking);
    scene.look(&Outcome::Pass, &["Judged", "Polled"]);
    for _ in 0..8 {
        scene.look(&Outcome::Pass, &["Polled"]);
    }
    assert_eq!(scene.state.stage, 0);
    assert!(is_closed(&scene));
    scene.now = MORNING.plus(Millis::from_secs(3_600));
    scene.look(&Outcome::Pass, &["Polled", "StagePassed", "StepEntered"]);
    assert_eq!(scene.state.stage, 1);
}
