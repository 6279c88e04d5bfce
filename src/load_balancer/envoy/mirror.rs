//! Copies of requests in a route: `request_mirror_policies` that name one of the two clusters. Others stay as they are.

use serde_yaml::{Mapping, Value};

use super::Pair;
use super::route::{Error, get};
use crate::units::{Weight, shown};

const KEYS: [&str; 2] = ["request_mirror_policies", "requestMirrorPolicies"];

/// Share of a route's requests that is copied to each cluster, in the order of the pair's names.
pub(super) fn read(action: &Mapping, pair: &Pair) -> Result<[Weight; 2], Error> {
    let mut shares = [Weight::ZERO; 2];
    let policies = KEYS.iter().filter_map(|key| action.get(*key)?.as_sequence()).flatten();
    for policy in policies {
        let Some(index) = index_of(policy, pair) else { continue };
        if !shares[index].is_zero() {
            return Err(Error::Twice(pair.names()[index].clone()));
        }
        shares[index] = share_of(policy, &pair.names()[index])?;
    }
    Ok(shares)
}

/// Replaces what is copied to the two clusters; the policy goes with its last share.
pub(super) fn write(action: &mut Mapping, pair: &Pair, shares: [Weight; 2]) {
    let key = KEYS.into_iter().find(|key| action.contains_key(*key)).unwrap_or(KEYS[0]);
    let mut policies = action.get(key).and_then(Value::as_sequence).cloned().unwrap_or_default();
    policies.retain(|policy| index_of(policy, pair).is_none());
    let ours = pair.names().iter().zip(shares).filter(|(_, share)| !share.is_zero());
    policies.extend(ours.map(|(cluster, share)| policy(cluster, share)));
    if policies.is_empty() {
        action.remove(key);
    } else {
        action.insert(key.into(), policies.into());
    }
}

fn policy(cluster: &str, share: Weight) -> Value {
    let mut value = Mapping::new();
    value.insert("numerator".into(), share.hundredths().into());
    value.insert("denominator".into(), "TEN_THOUSAND".into());
    let mut fraction = Mapping::new();
    fraction.insert("default_value".into(), value.into());
    let mut policy = Mapping::new();
    policy.insert("cluster".into(), cluster.into());
    policy.insert("runtime_fraction".into(), fraction.into());
    policy.into()
}

fn index_of(policy: &Value, pair: &Pair) -> Option<usize> {
    let cluster = policy.get("cluster").and_then(Value::as_str);
    pair.names().iter().position(|name| cluster == Some(name))
}

/// Without a fraction all requests are copied.
fn share_of(policy: &Value, cluster: &str) -> Result<Weight, Error> {
    let Some(fraction) = get(policy, "runtime_fraction", "runtimeFraction") else {
        return Ok(Weight::FULL);
    };
    if get(fraction, "runtime_key", "runtimeKey").is_some_and(|key| key.as_str() != Some("")) {
        return Err(Error::MirrorRuntime(shown(cluster)));
    }
    let value = get(fraction, "default_value", "defaultValue");
    let number = value.and_then(|value| value.get("numerator")).map_or(Some(0), Value::as_u64);
    let whole = match value.and_then(|value| value.get("denominator")) {
        None => Some(100),
        Some(Value::String(name)) => match name.as_str() {
            "HUNDRED" => Some(100),
            "TEN_THOUSAND" => Some(10_000),
            "MILLION" => Some(1_000_000),
            _ => None,
        },
        Some(number) => {
            number.as_u64().and_then(|index| [100, 10_000, 1_000_000].get(index as usize).copied())
        }
    };
    let share = number.zip(whole).and_then(|(part, whole)| Weight::from_ratio(part, whole));
    share.ok_or_else(|| Error::MirrorShare(shown(cluster)))
}

#[cfg(test)]
mod tests {
    use super::super::route::{self, parse, set_split, splits};
    use super::*;
    use crate::load_balancer::pair::tests::{pair, split};
    use crate::ports::Split;

    fn document(policies: &str) -> Value {
        let text = format!(
            "{{name: web, route: {{request_mirror_policies: {policies}, weighted_clusters: {{clusters: \
             [{{name: api-blue, weight: 1}}, {{name: api-green, weight: 0}}]}}}}}}"
        );
        parse(&text).unwrap()
    }

    fn copied(hundredths: u16) -> Split {
        let share = Weight::from_percent(f64::from(hundredths) / 100.0).unwrap();
        split(0.0).with_copies("green".parse().unwrap(), share)
    }

    #[test]
    fn copies_come_back_exactly_and_leave_without_a_trace() {
        let mut changed = document("[{cluster: shadow, trace_sampled: false}]");
        for hundredths in [1, 2_000, 10_000] {
            set_split(&mut changed, &pair(), &copied(hundredths)).unwrap();
            set_split(&mut changed, &pair(), &copied(hundredths)).unwrap();
            assert_eq!(splits(&changed, &pair()), Ok(vec![copied(hundredths)]));
        }
        set_split(&mut changed, &pair(), &split(0.0)).unwrap();
        let mut untouched = document("[{cluster: shadow, trace_sampled: false}]");
        set_split(&mut untouched, &pair(), &split(0.0)).unwrap();
        assert_eq!(changed, untouched);
        assert!(serde_yaml::to_string(&changed).unwrap().contains("shadow"));
    }

    #[test]
    fn what_others_wrote_is_read_as_envoy_does() {
        let read =
            |policies: &str| splits(&document(policies), &pair()).map(|mut all| all.remove(0));
        let green = |fraction: &str| read(&format!("[{{cluster: api-green, {fraction}}}]"));
        assert_eq!(read("[{cluster: api-green}]"), Ok(copied(10_000)));
        assert_eq!(green("runtime_fraction: {default_value: {numerator: 5}}"), Ok(copied(500)));
        assert_eq!(
            green("runtimeFraction: {defaultValue: {numerator: 5, denominator: MILLION}}"),
            Ok(copied(1))
        );
        assert_eq!(green("runtime_fraction: {default_value: {}}"), Ok(split(0.0)));
        let wrong = green("runtime_fraction: {default_value: {numerator: 101}}");
        assert!(matches!(wrong, Err(route::Error::MirrorShare(_))), "{wrong:?}");
        let keyed = green("runtime_fraction: {default_value: {numerator: 5}, runtime_key: a.b}");
        assert!(matches!(keyed, Err(route::Error::MirrorRuntime(_))), "{keyed:?}");
        let twice = read("[{cluster: api-green}, {cluster: api-green}]");
        assert!(matches!(twice, Err(route::Error::Twice(_))), "{twice:?}");
    }
}
