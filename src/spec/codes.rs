//! The stable code of every problem, with a paragraph for `tidegate explain CODE`.

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal;)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $code;)+

        /// Every code and its explanation, in the order of their groups.
        pub const ALL: &[(&str, &str)] = &[$(($code, concat!($($doc, "\n"),+))),+];
    };
}

/// The explanation of a code: full sentences, lines of at most 120 characters. `None` for an unknown code.
#[must_use]
pub fn explain(code: &str) -> Option<String> {
    let (_, text) = ALL.iter().find(|(known, _)| *known == code)?;
    Some(text.lines().map(str::trim).collect::<Vec<_>>().join("\n"))
}

codes! {
    /// The file cannot be read: it does not exist, may not be opened, is a folder, or is not UTF-8 text.
    UNREADABLE = "file::unreadable";
    /// The file is larger than anybody writes by hand: more than 1 MiB, nested deeper than 32 levels, or more than
    /// 50,000 values. The limits keep a hostile file from using up memory or time.
    TOO_LARGE = "file::too_large";
    /// The text is not YAML. The position is where the reader gave up; the mistake is often in the line before it:
    /// a missing quote, a tab, or an indent that does not match.
    SYNTAX = "file::syntax";
    /// Anchors, aliases, merge keys, tags and several documents in one file are refused: what stands in the file is
    /// what runs, and nothing expands behind the reader's back.
    UNSUPPORTED_YAML = "file::unsupported_yaml";
    /// The same key stands twice in one mapping. YAML would keep one of the two silently.
    DUPLICATE_KEY = "file::duplicate_key";
    /// The key means nothing here. Unknown keys are errors because a misspelt safety setting must not be ignored.
    UNKNOWN_KEY = "file::unknown_key";
    /// The key is known and planned, but this version does not act on it. It is refused rather than ignored, so that
    /// nobody relies on a protection that is not there. Remove it.
    NOT_AVAILABLE = "file::not_available";
    /// A key that has no default is missing.
    MISSING_KEY = "file::missing_key";
    /// The value has the wrong shape: a list where a mapping is expected, a text where a number is, and so on.
    WRONG_TYPE = "file::wrong_type";
    /// The value has the right shape but is not one of those allowed.
    INVALID_VALUE = "file::invalid_value";
    /// A name is 1 to 63 of a-z, 0-9, `_` and `-`, starting with a letter or digit: it ends up in labels and paths.
    INVALID_NAME = "file::invalid_name";

    /// A duration reads `30_minutes`, `2_hours`, `90s`, `1h30m` or `500ms`, in falling units, up to 365 days.
    INVALID_DURATION = "quantity::duration";
    /// A weight is a share of traffic from 0 to 100 percent in steps of 0.01, written `5` or `5%` without a space.
    INVALID_WEIGHT = "quantity::weight";
    /// A quantity of a criterion is a percentage (`0.1%`, `0.1pp`, `10% relative`), a time (`500ms`) or a number
    /// (`4.5`), whichever the analysis measures.
    INVALID_QUANTITY = "quantity::invalid";

    /// A criterion reads `<analysis>[_increase] <op> <quantity>` with one of `< <= > >=`, or is the bare name of a check.
    CRITERION_SYNTAX = "criterion::syntax";
    /// No analysis of that name is in the analysis folder. An analysis is named after its file.
    UNKNOWN_ANALYSIS = "criterion::unknown_analysis";
    /// The comparison does not fit what the analysis measures: a check has no number to compare, a rate needs one, a
    /// gauge has no increase.
    CRITERION_KIND = "criterion::kind";
    /// A criterion states what must hold, a trigger what rolls back. `error_rate > 1%` as a criterion would promote
    /// exactly the versions that fail.
    CRITERION_DIRECTION = "criterion::direction";
    /// The limit cannot decide anything: outside 0 to 100 percent, or outside the gauge's range.
    CRITERION_LIMIT = "criterion::limit";
    /// The same criterion stands twice in one stage, or the same trigger twice.
    DUPLICATE_CRITERION = "criterion::duplicate";
    /// A trigger rolls back what a criterion accepts: its limit is tighter than the criterion's, so the threshold is
    /// inverted. Make the trigger's limit at least the criterion's.
    CONTRADICTING_CRITERIA = "contradicting_criteria";
    /// A limit of "no increase at all" has no margin. Without history of the service such a limit only holds and never
    /// promotes or rolls back, and with little traffic nothing can prove it. Give it a small margin.
    NO_MARGIN = "criterion::no_margin";
    /// A gauge without a `range` and without history cannot prove anything until there are enough values. With the
    /// smallest and largest possible value the test is exact from the first.
    GAUGE_WITHOUT_RANGE = "criterion::gauge_without_range";

    /// A pipeline needs at least one stage, and at most 50.
    STAGES = "pipeline::stages";
    /// A later stage may not lower the weight of a region, and every stage has to raise it in at least one.
    STAGES_NOT_INCREASING = "pipeline::stages_not_increasing";
    /// The steps of a stage rise, and end below or at the weight of the stage.
    STEPS_NOT_INCREASING = "pipeline::steps_not_increasing";
    /// Copies of requests (`mirror`) come before a region has any canary weight, and only where its load balancers can
    /// copy requests: otherwise copies and real requests would get into the same numbers, or nothing would happen.
    MIRROR = "pipeline::mirror";
    /// A region that the fleet does not have.
    UNKNOWN_REGION = "pipeline::unknown_region";
    /// A region stands twice in one stage.
    DUPLICATE_REGION = "pipeline::duplicate_region";
    /// A bake of no time is no bake; `max_duration` is at least `duration`.
    STAGE_DURATION = "pipeline::duration";
    /// A stage without criteria is held for its duration and passes when no trigger fires and enough requests were
    /// seen; nothing is proven by it.
    NO_CRITERIA = "pipeline::no_criteria";
    /// Without triggers only a criterion that is proven violated rolls back.
    NO_TRIGGERS = "pipeline::no_triggers";

    /// The analysis needs exactly one source.
    ANALYSIS_SOURCE = "analysis::source";
    /// The selector or expression is not PromQL, or reads more than it may: a selector without a metric name, a range
    /// over an hour, a regular expression over 200 characters.
    SELECTOR = "analysis::selector";
    /// A variable that has no value for this service. There are `$service`, `$region`, `$version`, `$track`, the labels
    /// of the region and the `metrics` of the service in the fleet file.
    UNKNOWN_VARIABLE = "analysis::unknown_variable";
    /// The selector reads the same series for stable and canary because it uses no variable that tells them apart,
    /// such as `$version`, `$track`, or a variable of the service's `metrics` with `{slot}` or `{version}`.
    NO_ARM_VARIABLE = "analysis::no_arm_variable";
    /// For this service the selector comes out the same for stable and canary, so it would compare a version with
    /// itself.
    EQUAL_ARMS = "analysis::equal_arms";
    /// The analysis names a check that the fleet file does not define under `checks`.
    UNKNOWN_CHECK = "analysis::unknown_check";

    /// The shares of all regions sum to 100 percent.
    SHARES = "fleet::shares";
    /// A secret stands in the file. Files are copied, reviewed and logged; write `{env: NAME}` or `{file: PATH}`. The
    /// file is read again at each use, so a rotated secret is picked up.
    INLINE_SECRET = "fleet::inline_secret";
    /// An address is an absolute `http://` or `https://` URL without user name or password.
    INVALID_URL = "fleet::url";
    /// More than 200 regions, 2,000 services, 20 targets of a service in a region, or 1,000 checks.
    TOO_MANY = "fleet::too_many";
    /// The service is not in the fleet file.
    UNKNOWN_SERVICE = "fleet::unknown_service";
    /// The service has no load balancer in a region that the pipeline names.
    NO_TARGET = "fleet::no_target";
    /// A service has exactly two different slots, and each target maps both to different clusters.
    SLOTS = "fleet::slots";
    /// Envoys that fetch their routes need the top-level `xds` block; beyond loopback it needs mutual TLS.
    XDS = "fleet::xds";
    /// Traefiks that fetch their weights (`traefik_http`) need the top-level `traefik_provider` block; beyond loopback it
    /// needs mutual TLS.
    TRAEFIK_PROVIDER = "fleet::traefik_provider";
    /// With `promotion: swap` the weights at the end of a rollout are those that stay. A load balancer that comes back with
    /// the weights of its own configuration would send everybody to the old version after its next restart, so it needs
    /// a `persist` hook that writes them there (for HAProxy: the server-state file, or the configuration itself).
    WEIGHTS_DO_NOT_STAY = "fleet::weights_do_not_stay";
    /// The load balancer's own steps are too coarse for this weight. HAProxy's weights go up to 256, so nothing between 0
    /// and 0.39 % fits, and not every hundredth above; a name server without weights knows only all or nothing.
    TOO_FINE = "fleet::weight_too_fine";
    /// Users who have asked a name server keep its answer for the TTL of the record, and some resolvers for longer. A rollback
    /// is written at once, but reaches those users only when their answer has run out: the TTL is the shortest time in
    /// which everybody can be back. Keep it at 30 s or less while versions are rolled out by DNS.
    DNS_LIFETIME = "fleet::dns_lifetime";
    /// A cohort (`cohort_of`) is a slice of one region's traffic, chosen by a header or a cookie. It names a region of the
    /// fleet, not itself and not another cohort; a service that has a load balancer for it has one in its region too, and
    /// the two are not the same weights.
    COHORT = "fleet::cohort";
    /// Whoever is chosen by a header or a cookie is no random sample of a region's users: mixed into the region's numbers,
    /// they would spoil its verdict. So a cohort has numbers of its own. With its region's source it needs a label that
    /// differs, and analyses whose selectors use it; Envoy counts by cluster, HAProxy by backend, Traefik by service.
    COHORT_NUMBERS = "fleet::cohort_numbers";
    /// A name server answers a name and sees no request, so no header and no cookie. A cohort needs a balancer that does.
    COHORT_BY_NAME = "fleet::cohort_by_name";
    /// A region and its cohorts send their users to the same two slots. A pipeline that ends with one of them at 100 % and
    /// leaves the other one out would retire a slot that still has users, so its stages name both or neither.
    COHORT_LEFT_OUT = "pipeline::cohort_left_out";
    /// `affinity` keeps users on the arm that they met first, by the hash of a cookie or header that they bring along. Every
    /// load balancer of the service has to be able to, in such a way that a rollback takes all of them back: cookies that
    /// name a server, as HAProxy's and Traefik's do, keep their users there.
    AFFINITY = "fleet::affinity";
    /// A stage starts only if its bake fits into a window, and no window of that region is as long as the bake.
    WINDOW_TOO_SHORT = "reason::window_too_short";
    /// Beyond loopback the API needs TLS, and people that the fleet names: whoever reaches it moves production traffic.
    ACCESS = "fleet::access";
    /// Two targets of a service in one region have the same name.
    DUPLICATE_TARGET = "fleet::duplicate_target";

    /// The probes and the DNS lifetime add up to more than the promised failover time: interval x failures passes
    /// before a region counts as failed, and clients keep the old answer for the DNS lifetime after that.
    FAILOVER_TOO_SLOW = "reason::failover_too_slow";
    /// A trigger that can never be the first to fire, because another one measures the same with a tighter limit.
    DOMINATED_TRIGGER = "reason::dominated_trigger";
    /// Between a criterion's limit and the trigger's limit no trigger fires: what happens there is decided by
    /// `on_fail` alone (default: roll back once the criterion is proven violated). Write `on_fail` to say that this is
    /// meant, or add a trigger at the criterion's limit.
    GAP = "reason::gap";
    /// The first users to meet the new version are those of the largest region. Start with a smaller one.
    FIRST_WAVE_LARGEST = "reason::first_wave_largest";
    /// The region goes from no canary to half of its users or more in one step, so nothing is learnt there at a small
    /// weight first. Use `steps`, and `max_parallel_regions: 1` to go region by region.
    NO_CANARY = "reason::no_canary";
    /// The last stage of a region ends below its full weight. A passed pipeline is promoted, so the rest of the users
    /// would get the new version in one step that nothing looks at. End with a stage at full weight, or say `holdback`.
    ENDS_EARLY = "reason::ends_early";
    /// The bakes alone take longer than the six hours after which hosted CI ends a job. Use a self-hosted runner, the
    /// daemon, or shorter stages.
    OUTLASTS_CI = "reason::outlasts_ci";
    /// A region reaches its full weight although no statistical criterion was ever asked there: checks alone say that
    /// it answers, not that the new version is no worse.
    UNPROVEN_REGION = "reason::unproven_region";
    /// `manual_rollback_authorization` asks for several people. A local `run` cannot tell people apart: its rollback
    /// needs the owner of the socket and is recorded as "approval not enforced: local run".
    APPROVAL_NOT_ENFORCED = "reason::approval_not_enforced";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_explained() {
        let unique: BTreeSet<_> = ALL.iter().map(|(code, _)| code).collect();
        assert_eq!(unique.len(), ALL.len());
        for (code, _) in ALL {
            let text = explain(code).unwrap();
            assert!(text.len() > 30 && text.ends_with('.'), "{code}: {text}");
        }
        assert_eq!(explain("nope"), None);
    }
}
