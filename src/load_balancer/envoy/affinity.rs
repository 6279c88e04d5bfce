//! Users who stay on one arm: the routes that split between the pair choose by the hash of what tells them apart.

use serde_yaml::{Mapping, Value};

use super::Pair;
use super::route::{Error, change, is_weighted};
use crate::spec::fleet::{Affinity, UserKey};

const POLICIES: [&str; 2] = ["hash_policy", "hashPolicy"];

/// Adds the cookie or header to each route action that splits between both clusters, before other hash policies. Writing it twice
/// is the same as once.
pub(super) fn write(route: &mut Value, pair: &Pair, affinity: &Affinity) -> Result<(), Error> {
    change(route, pair, &mut |action| {
        let lists = action.iter_mut().filter(|(key, _)| is_weighted(key)).map(|(_, list)| list);
        for list in lists.filter_map(Value::as_mapping_mut) {
            if list.contains_key("header_name") || list.contains_key("headerName") {
                return Err(Error::ByHeader(pair.key()));
            }
            list.remove("useHashPolicy");
            list.insert("use_hash_policy".into(), true.into());
        }
        let key = POLICIES.into_iter().find(|key| action.contains_key(*key)).unwrap_or(POLICIES[0]);
        let mut policies =
            action.get(key).and_then(Value::as_sequence).cloned().unwrap_or_default();
        policies.retain(|other| *other != policy(affinity));
        policies.insert(0, policy(affinity));
        action.insert(key.into(), policies.into());
        Ok(())
    })
}

fn policy(affinity: &Affinity) -> Value {
    let (kind, key, name) = match &affinity.by {
        UserKey::Cookie(name) => ("cookie", "name", name),
        UserKey::Header(name) => ("header", "header_name", name),
    };
    let mut source = Mapping::new();
    source.insert(key.into(), name.as_str().into());
    let mut policy = Mapping::new();
    policy.insert(kind.into(), source.into());
    // What comes after it would move users who keep theirs.
    policy.insert("terminal".into(), true.into());
    policy.into()
}

#[cfg(test)]
mod tests {
    use super::super::route::{parse, set_split, splits};
    use super::*;
    use crate::load_balancer::pair::tests::{pair, split};

    #[test]
    fn what_tells_users_apart_goes_first_once_and_the_rest_stays() {
        let by = |by: UserKey| Affinity { by, requests_per_user: 5 };
        let affinity = by(UserKey::Cookie("arm".to_owned()));
        let text = |more: &str| {
            format!(
                "{{name: web, x: {{hash_policy: [{{header: {{header_name: x-user}}}}], weighted_clusters: {{{more} \
                 clusters: [{{name: api-blue, weight: 1}}, {{name: api-green, weight: 0}}]}}}}}}"
            )
        };
        let mut route = parse(&text("")).unwrap();
        write(&mut route, &pair(), &affinity).unwrap();
        let once = route.clone();
        write(&mut route, &pair(), &affinity).unwrap();
        assert_eq!(route, once);
        let policies = route["x"]["hash_policy"].as_sequence().unwrap();
        assert_eq!((policies.len(), policies[0]["cookie"]["name"].as_str()), (2, Some("arm")));
        let header = policy(&by(UserKey::Header("x-user".to_owned())));
        assert_eq!(header["header"]["header_name"], "x-user");
        assert_eq!(route["x"]["weighted_clusters"]["use_hash_policy"], true);
        set_split(&mut route, &pair(), &split(5.0)).unwrap();
        assert_eq!(splits(&route, &pair()), Ok(vec![split(5.0)]));
        let refused = write(&mut parse(&text("header_name: x,")).unwrap(), &pair(), &affinity);
        assert!(matches!(refused, Err(Error::ByHeader(_))), "{refused:?}");
    }
}
