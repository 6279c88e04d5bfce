//! Hooks where a region has a cohort: what is done to a slot is done once, and only when nobody uses it.

use super::scene::{ALL, Scene, is_silent};
use crate::engine::hooks::{Hook, HookCall, Standing, outstanding_hooks};
use crate::engine::input::Input;
use crate::engine::rollout::Phase;
use crate::sim::sample;
use crate::spec::plan::Plan;

/// `eu_west_1` is a slice of `us_east_1`'s traffic.
fn with_cohort(hooks: &[Hook]) -> Plan {
    let mut plan = sample::plan();
    let cohort = plan.regions.get_mut(&sample::region("eu_west_1")).unwrap();
    cohort.cohort_of = Some(sample::region("us_east_1"));
    plan.hooks.extend(hooks);
    plan
}

fn due(scene: &Scene) -> Vec<String> {
    outstanding_hooks(&scene.state).into_iter().map(|call| call.region.to_string()).collect()
}

fn done(scene: &mut Scene) {
    for call in outstanding_hooks(&scene.state) {
        let ended = Input::HookEnded { call, standing: Standing::Done };
        for event in crate::engine::decide::decide(&scene.state, &ended, scene.now).events {
            scene.state.apply(&event, scene.now);
        }
    }
}

#[test]
fn a_slot_is_deployed_once_and_not_before_its_cohorts_have_left_it() {
    let mut scene = Scene::new(with_cohort(&[Hook::Deploy]));
    scene.read(scene.wanted("us_east_1"), &["BackendsSeen", "RegionRead"]);
    // The slot of us_east_1 has no users there, but some of its cohort.
    scene.read(scene.at("eu_west_1", 3.0), &["BackendsSeen", "RegionRead"]);
    let read = ["BackendsSeen", "RegionRead", "HookStarted"];
    scene.read(scene.wanted("ap_southeast_2"), &read);
    assert_eq!(due(&scene), ["ap_southeast_2"]);
    scene.read(scene.wanted("eu_west_1"), &["RegionRead", "HookStarted"]);
    assert_eq!(due(&scene), ["ap_southeast_2", "us_east_1"]);
    done(&mut scene);
    assert_ne!(scene.state.phase, Phase::Preparing);
    assert_eq!(due(&scene), Vec::<String>::new());
}

#[test]
fn a_deploy_without_a_known_end_waits_for_users_who_have_come_meanwhile() {
    let mut scene = Scene::new(with_cohort(&[Hook::Deploy]));
    let (seen, begins) =
        (["BackendsSeen", "RegionRead"], ["BackendsSeen", "RegionRead", "HookStarted"]);
    scene.read(scene.wanted("ap_southeast_2"), &begins);
    scene.read(scene.wanted("eu_west_1"), &seen);
    scene.read(scene.wanted("us_east_1"), &begins);
    let calls = outstanding_hooks(&scene.state);
    assert_eq!(due(&scene), ["ap_southeast_2", "us_east_1"]);

    scene.read(scene.at("eu_west_1", 3.0), &["RegionRead"]);
    let unknown = |call: &HookCall| Input::HookEnded {
        call: call.clone(),
        standing: Standing::Unknown("no end in time".to_owned()),
    };
    scene.check(unknown(&calls[0]), &["HookEnded", "HookStarted"]);
    scene.check(unknown(&calls[1]), &["HookEnded"]);
    assert_eq!(due(&scene), ["ap_southeast_2"]);
    scene.read(scene.wanted("eu_west_1"), &["RegionRead", "HookStarted"]);
    assert_eq!(due(&scene), ["ap_southeast_2", "us_east_1"]);
}

#[test]
fn weights_are_made_to_stay_in_a_cohort_and_nothing_is_promoted_twice() {
    let mut scene = Scene::last_stage(with_cohort(&[Hook::Persist, Hook::Promote]));
    scene.bake();
    scene.confirm();
    assert_eq!(scene.state.phase, Phase::Promoting);
    assert_eq!(due(&scene), ALL);
    done(&mut scene);
    assert_eq!(due(&scene), ["ap_southeast_2", "us_east_1"]);
    done(&mut scene);
    assert_eq!(scene.state.phase, Phase::Promoted);
    is_silent(&scene);
}
