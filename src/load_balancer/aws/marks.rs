//! The generations that stand beside an action's weights, as tags: which is the newest, and what it wants.
//!
//! ```text
//! tidegate:generation:7 = blue=190 green=10
//! ```
//!
//! AWS cannot compare before it tags or changes, so each generation has a tag of its own: an older writer that comes in
//! between adds one and erases none, and the newest one is still there to be seen by everybody.

use std::collections::BTreeMap;

use aws_sdk_elasticloadbalancingv2::types::Tag;

use crate::load_balancer::Pair;
use crate::units::Generation;

/// What the keys begin with.
const PREFIX: &str = "tidegate:generation:";

/// By generation; the weights where they can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marks(BTreeMap<Generation, Option<[u32; 2]>>);

impl Marks {
    /// Those among the tags of a resource; all others are somebody else's.
    pub(super) fn of(tags: &[Tag], pair: &Pair) -> Self {
        let mark = |tag: &Tag| {
            let generation = tag.key()?.strip_prefix(PREFIX)?.parse().ok()?;
            Some((Generation(generation), weights(tag.value().unwrap_or_default(), pair)))
        };
        Self(tags.iter().filter_map(mark).collect())
    }

    /// The newest generation, and its weights.
    pub(super) fn newest(&self) -> Option<(Generation, Option<[u32; 2]>)> {
        self.0.last_key_value().map(|(generation, weights)| (*generation, *weights))
    }

    /// Keys of the generations before this one.
    pub(super) fn keys_before(&self, generation: Generation) -> Vec<String> {
        self.0.range(..generation).map(|(old, _)| key(*old)).collect()
    }
}

/// The tag that announces these weights, in the order of the slots.
pub(super) fn mark(generation: Generation, wanted: [u32; 2], pair: &Pair) -> Tag {
    let [one, other] = pair.slots();
    let value = format!("{one}={} {other}={}", wanted[0], wanted[1]);
    Tag::builder().key(key(generation)).value(value).build()
}

fn key(generation: Generation) -> String {
    format!("{PREFIX}{}", generation.0)
}

fn weights(value: &str, pair: &Pair) -> Option<[u32; 2]> {
    let named: BTreeMap<&str, &str> =
        value.split(' ').filter_map(|part| part.split_once('=')).collect();
    let of = |place: usize| named.get(pair.slots()[place].as_str())?.parse().ok();
    Some([of(0)?, of(1)?])
}

#[cfg(test)]
mod tests {
    use super::super::super::pair::tests::pair;
    use super::*;

    fn tag(key: &str, value: &str) -> Tag {
        Tag::builder().key(key).value(value).build()
    }

    #[test]
    fn the_newest_mark_counts_and_foreign_tags_do_not() {
        let pair = pair();
        let tags = [
            tag("Name", "web"),
            tag("tidegate:generation:x", "blue=1 green=2"),
            mark(Generation(9), [200, 0], &pair),
            mark(Generation(10), [190, 10], &pair),
        ];
        let marks = Marks::of(&tags, &pair);
        assert_eq!(marks.newest(), Some((Generation(10), Some([190, 10]))));
        assert_eq!(marks.keys_before(Generation(10)), ["tidegate:generation:9"]);
        let edited = Marks::of(&[tag("tidegate:generation:3", "blue=1")], &pair);
        assert_eq!(edited.newest(), Some((Generation(3), None)));
        assert_eq!(Marks::of(&[], &pair).newest(), None);
    }
}
