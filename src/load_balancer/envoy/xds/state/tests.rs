//! What Envoys acknowledge, refuse and leave behind.

use std::time::Duration;

use super::*;
use crate::load_balancer::pair::tests::{pair, split};
use crate::ports::InstanceReading;

fn key() -> ResourceKey {
    ResourceKey { node_cluster: "us_east_1".to_owned(), route: "web".to_owned() }
}

fn document() -> Value {
    let list = "[{name: api-blue, weight: 100}, {name: api-green, weight: 0}]";
    let text = format!(
        "{{name: web, virtual_hosts: [{{name: a, domains: ['*'], routes: [{{match: {{prefix: /}}, \
         route: {{weighted_clusters: {{clusters: {list}}}}}}}]}}]}}"
    );
    route::parse(&text).unwrap()
}

fn expected(percent: f64, generation: u64) -> Expected {
    Expected { split: split(percent), generation: Some(Generation(generation)) }
}

fn state(known: Option<(f64, u64)>) -> State {
    let known = known.map(|(percent, generation)| Known {
        split: split(percent),
        generation: Generation(generation),
        instances: Vec::new(),
    });
    let mut state = State::default();
    state.register(&key(), document(), &pair(), None, known.as_ref()).unwrap();
    state
}

fn join(state: &mut State, node: &str, stream: u64) {
    assert!(state.joined(&key(), node, stream, ""));
    let rendered = state.document_for(&key(), node).unwrap();
    state.acknowledged(&key(), node, stream, &rendered);
}

fn problems(state: &State, after: Option<Duration>, now: Instant) -> Vec<String> {
    let shown = state.shown(&key(), &pair(), after, now).unwrap();
    crate::load_balancer::envoy::reading::merge(shown.expected.as_ref(), &shown.seen, Vec::new())
        .map(|reading| reading.note.into_iter().collect())
        .unwrap_or_default()
}

#[test]
fn nothing_is_served_before_weights_are_known() {
    let mut state = state(None);
    assert!(state.joined(&key(), "edge-1", 1, ""));
    assert_eq!(state.document_for(&key(), "edge-1"), None);
    state.serve(&key(), &pair(), expected(0.0, 1)).unwrap();
    assert_eq!(state.document_for(&key(), "edge-1").unwrap().version, "api-blue/api-green=1");
}

#[test]
fn older_generations_are_refused_also_when_only_an_envoy_knows_the_newer() {
    let mut state = state(Some((5.0, 7)));
    let refused = state.serve(&key(), &pair(), expected(50.0, 6));
    assert!(matches!(refused, Err(ServeError::Superseded(Generation(7)))));
    assert!(state.joined(&key(), "edge-1", 1, "api-blue/api-green=9"));
    assert_eq!(state.document_for(&key(), "edge-1"), None, "it keeps the newer weights");
    let refused = state.serve(&key(), &pair(), expected(50.0, 8));
    assert!(matches!(refused, Err(ServeError::Superseded(Generation(9)))));
    state.serve(&key(), &pair(), expected(0.0, 10)).unwrap();
    assert!(state.document_for(&key(), "edge-1").is_some());
}

#[test]
fn one_that_leaves_with_canary_weight_stays_named_until_it_is_back() {
    let mut state = state(Some((5.0, 1)));
    let now = Instant::now();
    join(&mut state, "edge-1", 1);
    join(&mut state, "edge-2", 2);
    state.left(&key(), "edge-2", 2, now);
    state.serve(&key(), &pair(), expected(0.0, 2)).unwrap();
    let rendered = state.document_for(&key(), "edge-1").unwrap();
    state.acknowledged(&key(), "edge-1", 1, &rendered);
    let named = "edge-2 is disconnected, last seen with blue 95 % green 5 %";
    assert_eq!(problems(&state, None, now), [named]);
    let later = now + Duration::from_secs(60);
    assert_eq!(problems(&state, Some(Duration::from_secs(61)), later), [named]);
    let shown = state.shown(&key(), &pair(), Some(Duration::from_secs(60)), later).unwrap();
    assert_eq!(shown.forgotten, ["edge-2"]);
    assert_eq!(problems(&state, Some(Duration::from_secs(60)), later), Vec::<String>::new());
    join(&mut state, "edge-2", 3);
    assert_eq!(problems(&state, None, later), Vec::<String>::new());
}

#[test]
fn one_that_leaves_without_canary_weight_is_not_awaited() {
    let mut state = state(Some((0.0, 1)));
    join(&mut state, "edge-1", 1);
    join(&mut state, "edge-2", 2);
    state.left(&key(), "edge-2", 2, Instant::now());
    assert_eq!(state.shown(&key(), &pair(), None, Instant::now()).unwrap().seen.len(), 1);
}

#[test]
fn the_store_remembers_instances_over_a_restart() {
    let seen = |name: &str, percent| InstanceReading {
        name: name.to_owned(),
        split: Some(split(percent)),
        connected: true,
    };
    let known = Known {
        split: split(0.0),
        generation: Generation(4),
        instances: vec![seen("edge-1", 5.0), seen("edge-2", 0.0)],
    };
    let mut state = State::default();
    state.register(&key(), document(), &pair(), None, Some(&known)).unwrap();
    let named = "edge-1 is disconnected, last seen with blue 95 % green 5 %";
    assert_eq!(problems(&state, None, Instant::now()), [named]);
    assert!(state.forget(&key(), "edge-1"));
    assert!(state.shown(&key(), &pair(), None, Instant::now()).unwrap().seen.is_empty());
}

#[test]
fn a_refusal_keeps_what_was_acknowledged() {
    let mut state = state(Some((5.0, 1)));
    join(&mut state, "edge-1", 1);
    state.serve(&key(), &pair(), expected(25.0, 2)).unwrap();
    let version = state.document_for(&key(), "edge-1").unwrap().version.clone();
    state.refused(&key(), "edge-1", 1, &version, "no such cluster".to_owned());
    let shown = state.shown(&key(), &pair(), None, Instant::now()).unwrap();
    assert!(shown.answered && shown.refused.len() == 1);
    assert_eq!(shown.seen[0].splits, [split(5.0)]);
    assert_eq!(
        problems(&state, None, Instant::now()),
        ["edge-1 refused the route: no such cluster"]
    );
}

#[test]
fn a_late_word_of_an_old_stream_is_ignored() {
    let mut state = state(Some((5.0, 1)));
    join(&mut state, "edge-1", 1);
    join(&mut state, "edge-1", 2);
    state.left(&key(), "edge-1", 1, Instant::now());
    assert!(state.is_current(&key(), "edge-1", 2) && !state.is_current(&key(), "edge-1", 1));
    assert!(problems(&state, None, Instant::now()).is_empty());
}

#[test]
fn what_cannot_be_served_is_not_registered() {
    let mut state = state(None);
    let register =
        |state: &mut State, document| state.register(&key(), document, &pair(), None, None);
    assert!(matches!(register(&mut state, document()), Err(RegisterError::Twice)));
    let mut other = document();
    other["internal_only_headers"] = vec!["x"].into();
    assert!(matches!(register(&mut state, other), Err(RegisterError::TwoFiles)));
    let mut wrong = document();
    wrong["foo"] = 1.into();
    assert!(matches!(register(&mut state, wrong), Err(RegisterError::Route(_))));
}
