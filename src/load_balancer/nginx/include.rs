//! The included file's text.

use super::super::Pair;
use crate::spec::fleet::{Nginx, UserKey};
use crate::units::{Generation, Weight};

/// What stands before the generation, in the file and in what nginx shows.
const MARKER: &str = "generation=";

/// The generation that a text names; that of a file from before the first one is 0, and no generation.
pub fn generation_of(text: &str) -> Option<Generation> {
    let (_, rest) = text.split_once(MARKER)?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|number| *number > 0).map(Generation)
}

/// What nginx includes; `path` is that of its status location.
pub fn text(
    settings: &Nginx,
    path: &str,
    pair: &Pair,
    weights: [Weight; 2],
    generation: Generation,
) -> String {
    let Nginx { variable, key, affinity, .. } = settings;
    // Who brings nothing along is drawn anew with each request.
    let (key, users) = match affinity.as_ref().map(|affinity| brought(&affinity.by)) {
        None => (key.clone(), String::new()),
        Some(own) => {
            let user = format!("${variable}_user");
            let map = format!("map {own} {user} {{ \"\" $request_id; default {own}; }}\n");
            (user, map)
        }
    };
    let [one, other] = pair.names();
    // nginx refuses 0 %, and takes only the rest as `*`.
    let shares = match weights {
        [_, rest] if rest.is_zero() => format!("* {one};"),
        [first, _] if first.is_zero() => format!("* {other};"),
        [first, _] => {
            let hundredths = first.hundredths();
            format!("{}.{:02}% {one}; * {other};", hundredths / 100, hundredths % 100)
        }
    };
    format!(
        "# Written by Tidegate. A change by hand is seen, and undone by the next rollout.\n{users}\
         map $uri ${variable}_key {{ default \"{key}\"; \"{path}\" $arg_key; }}\n\
         split_clients \"${variable}_key\" ${variable} {{ {shares} }}\n\
         map \"\" ${variable}_state {{ default \"{MARKER}{}\"; }}\n",
        generation.0
    )
}

/// nginx's variable of what a user brings along.
fn brought(by: &UserKey) -> String {
    match by {
        UserKey::Cookie(name) => format!("$cookie_{name}"),
        UserKey::Header(name) => {
            format!("$http_{}", name.to_ascii_lowercase().replace('-', "_"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_balancer::pair::tests::{pair, split};

    fn settings() -> Nginx {
        Nginx {
            include: "web.conf".into(),
            variable: "pool".to_owned(),
            key: "$request_id".to_owned(),
            affinity: None,
            upstreams: std::collections::BTreeMap::new(),
            status: String::new(),
            test: Vec::new(),
            reload: Vec::new(),
        }
    }

    #[test]
    fn the_text_never_says_0_percent_and_tells_its_generation() {
        for (green, shares) in [
            (0.0, "{ * api-blue; }"),
            (100.0, "{ * api-green; }"),
            (5.0, "{ 95.00% api-blue; * api-green; }"),
            (99.99, "{ 0.01% api-blue; * api-green; }"),
        ] {
            let weights = pair().weights(&split(green)).unwrap();
            let text = text(&settings(), "/t", &pair(), weights, Generation(12));
            assert!(text.contains(shares), "{text}");
            assert_eq!(generation_of(&text), Some(Generation(12)));
        }
        assert_eq!(generation_of("generation=0"), None);
        assert_eq!(generation_of("generation=x"), None);
    }
}
