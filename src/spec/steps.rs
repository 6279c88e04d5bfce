//! The steps of a stage: its waves of regions, and the ramp that each wave walks.

use std::collections::BTreeMap;

use super::codes;
use super::decode::Decoder;
use super::pipeline::StageFile;
use super::plan::Step;
use crate::units::{Millis, RegionName, Weight};

/// What the stages before have reached, by region.
#[derive(Debug, Clone, Default)]
pub struct Before {
    /// Canary weights.
    pub weights: BTreeMap<RegionName, Weight>,
    /// Shares that are mirrored; never beside a weight.
    pub mirrors: BTreeMap<RegionName, Weight>,
}

/// Every step of a stage, the last one holding `weight` in all of `regions` for `duration`.
///
/// `before` holds what the stages before have reached; no step lowers a weight. A region's first weight ends its copies. Steps that change nothing are left
/// out. A step without a bake of its own bakes a tenth of the stage's, at least a minute and at most all of it.
pub fn expand(
    decoder: &mut Decoder,
    file: &StageFile,
    weight: Weight,
    regions: &[RegionName],
    duration: Millis,
    before: &Before,
) -> Vec<Step> {
    let short = Millis((duration.0 / 10).max(60_000)).min(duration);
    let mut ramp: Vec<(Weight, Millis)> = Vec::new();
    for step in &file.steps {
        if file.mirror.is_some() {
            let message = "a stage that mirrors has no steps";
            let help = "write a stage for each share that is mirrored";
            decoder.error(codes::STEPS_NOT_INCREASING, step.span, message, help);
            break;
        }
        let highest = ramp.last().map_or(Weight::ZERO, |(weight, _)| *weight);
        if step.weight <= highest || step.weight > weight {
            let message = format!(
                "a step at {} does not lie between {highest} and the stage's {weight}",
                step.weight
            );
            decoder.error(
                codes::STEPS_NOT_INCREASING,
                step.span,
                message,
                "steps rise and end with the stage's own weight",
            );
        } else if step.weight < weight {
            ramp.push((step.weight, step.duration.unwrap_or(short)));
        } else if step.duration.is_some() {
            let help = "the last step bakes for the `duration` of the stage";
            decoder.error(
                codes::STEPS_NOT_INCREASING,
                step.span,
                "the last step has no duration of its own",
                help,
            );
        }
    }
    ramp.push((weight, short));
    let mirror = file.mirror.as_ref().map(|mirror| mirror.value);
    let wave = file.max_parallel_regions.unwrap_or(regions.len()).max(1);
    let Before { mut weights, mut mirrors } = before.clone();
    let mut steps: Vec<Step> = Vec::new();
    for regions in regions.chunks(wave) {
        for (weight, bake) in &ramp {
            let reached = (weights.clone(), mirrors.clone());
            for region in regions {
                match mirror {
                    Some(share) => _ = mirrors.insert(region.clone(), share),
                    None => {
                        let now = weights.entry(region.clone()).or_default();
                        *now = (*now).max(*weight);
                        mirrors.remove(region);
                    }
                }
            }
            if reached != (weights.clone(), mirrors.clone()) {
                let (weights, mirrors) = (weights.clone(), mirrors.clone());
                steps.push(Step { weights, mirrors, bake: *bake });
            }
        }
    }
    match steps.last_mut() {
        Some(last) => last.bake = duration,
        None => steps.push(Step { weights, mirrors, bake: duration }),
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::super::file::Span;
    use super::super::pipeline::{StageDefaults, StepFile};
    use super::*;
    use crate::units::StageName;

    fn percent(percent: f64) -> Weight {
        Weight::from_percent(percent).unwrap()
    }

    fn walk(
        steps: &[f64],
        parallel: Option<usize>,
        before: &[(&str, f64)],
    ) -> Vec<(String, Millis)> {
        let span = Span::START;
        let file = StageFile {
            name: StageName::new("s").unwrap(),
            span,
            regions: Vec::new(),
            weight: None,
            mirror: None,
            criteria: Vec::new(),
            duration: None,
            steps: steps
                .iter()
                .map(|&weight| StepFile { span, weight: percent(weight), duration: None })
                .collect(),
            max_parallel_regions: parallel,
            own: StageDefaults::default(),
            gate: None,
            approvals: None,
        };
        let region = |name: &str| RegionName::new(name).unwrap();
        let regions = [region("a"), region("b")];
        let weights =
            before.iter().map(|(name, weight)| (region(name), percent(*weight))).collect();
        let before = Before { weights, mirrors: BTreeMap::new() };
        let mut decoder = Decoder::new("f");
        let hour = Millis::from_secs(3_600);
        let steps = expand(&mut decoder, &file, percent(100.0), &regions, hour, &before);
        assert!(decoder.problems.is_empty());
        let shown = |step: &Step| {
            step.weights.values().map(|w| w.percent().to_string()).collect::<Vec<_>>().join("/")
        };
        steps.iter().map(|step| (shown(step), step.bake)).collect()
    }

    #[test]
    fn a_stage_without_steps_is_one_step() {
        assert_eq!(walk(&[], None, &[]), [("100/100".to_owned(), Millis::from_secs(3_600))]);
    }

    #[test]
    fn a_ramp_never_lowers_what_an_earlier_stage_reached() {
        let walked: Vec<_> =
            walk(&[10.0, 60.0], None, &[("a", 25.0)]).into_iter().map(|(text, _)| text).collect();
        assert_eq!(walked, ["25/10", "60/60", "100/100"]);
    }

    #[test]
    fn waves_go_region_by_region_and_only_the_last_step_bakes_in_full() {
        let short = Millis::from_secs(360);
        let expected = [
            ("10", short),
            ("100", short),
            ("100/10", short),
            ("100/100", Millis::from_secs(3_600)),
        ];
        let expected: Vec<_> =
            expected.iter().map(|(text, bake)| ((*text).to_owned(), *bake)).collect();
        assert_eq!(walk(&[10.0], Some(1), &[]), expected);
    }
}
