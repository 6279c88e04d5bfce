//! Evidence against thresholds, as a picture (SVG).

use std::fmt::Write;

use super::{End, Evidence, Replay, Replayed};
use crate::units::Timestamp;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 56.0;
const RIGHT: f64 = WIDTH - 20.0;
const BOTTOM: f64 = HEIGHT - 40.0;
/// The odds that are shown, as powers of ten.
const POWERS: (i32, i32) = (-3, 5);
const HARM: &str = "#b5382a";
const PROOF: &str = "#2b7a3f";
/// How the lines of each policy are drawn.
const DASHES: [&str; 2] = ["none", "5 3"];

/// Odds at which something happens.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds {
    /// It goes back.
    pub back: f64,
    /// It holds.
    pub hold: f64,
    /// A criterion is proven.
    pub proven: f64,
}

/// Draws one policy, or two beside each other (the second one dashed), each with its name.
#[must_use]
pub fn svg(policies: &[(String, &Replayed)], thresholds: Thresholds) -> String {
    let mut out = String::new();
    let all = policies.iter().flat_map(|(_, replayed)| &replayed.evidence);
    let (first, last) = all
        .fold((u64::MAX, 0), |(first, last), known| (first.min(known.at.0), last.max(known.at.0)));
    let scale = Scale { first: first.min(last), last };
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n\
         <title>Evidence over time</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    );
    legend(&mut out, policies);
    axes(&mut out, scale);
    for (odds, colour, name) in [
        (thresholds.back, HARM, "goes back"),
        (thresholds.hold, "#b7791f", "holds"),
        (thresholds.proven, PROOF, "proven"),
    ] {
        let y = height(odds.ln());
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" \
             stroke-dasharray=\"2 4\"/>"
        );
        // The two that often coincide are written at both ends.
        let (x, anchor) = if name == "proven" { (LEFT + 4.0, "start") } else { (RIGHT, "end") };
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{name}: {odds:.0} to 1</text>",
            y - 4.0
        );
    }
    for ((_, replayed), dash) in policies.iter().zip(DASHES) {
        for replay in &replayed.rollouts {
            rollout(&mut out, replay, &replayed.evidence, scale, dash);
        }
    }
    out.push_str("</svg>\n");
    out
}

/// The time that is shown.
#[derive(Clone, Copy)]
struct Scale {
    first: u64,
    last: u64,
}

impl Scale {
    fn place(self, at: Timestamp) -> f64 {
        let all = (self.last - self.first).max(1) as f64;
        LEFT + (RIGHT - LEFT) * at.0.saturating_sub(self.first) as f64 / all
    }
}

fn height(log_odds: f64) -> f64 {
    let (low, high) = (f64::from(POWERS.0), f64::from(POWERS.1));
    let power = (log_odds / std::f64::consts::LN_10).clamp(low, high);
    BOTTOM - (BOTTOM - TOP) * (power - low) / (high - low)
}

fn legend(out: &mut String, policies: &[(String, &Replayed)]) {
    let mut x = LEFT;
    for ((name, _), dash) in policies.iter().zip(DASHES) {
        for (what, colour) in [("harm", HARM), ("weakest proof", PROOF)] {
            let text = format!("{}: {what}", escaped(name));
            let _ = writeln!(
                out,
                "<line x1=\"{x:.0}\" x2=\"{:.0}\" y1=\"20\" y2=\"20\" stroke=\"{colour}\" \
                 stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>\n\
                 <text x=\"{:.0}\" y=\"24\">{text}</text>",
                x + 24.0,
                x + 30.0
            );
            x += 50.0 + 6.6 * text.len() as f64;
        }
    }
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"44\" fill=\"#555\">odds of the evidence, to 1; a vertical line is the end of a rollout</text>"
    );
}

fn axes(out: &mut String, scale: Scale) {
    for power in POWERS.0..=POWERS.1 {
        let y = height(f64::from(power) * std::f64::consts::LN_10);
        let label = if power < 0 {
            format!("1/{}", 10_u64.pow(power.unsigned_abs()))
        } else {
            10_u64.pow(power.unsigned_abs()).to_string()
        };
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e5e5e5\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    for part in 0..=5 {
        let at = Timestamp(scale.first + (scale.last - scale.first) / 5 * part);
        let anchor = match part {
            0 => "start",
            5 => "end",
            _ => "middle",
        };
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            scale.place(at),
            BOTTOM + 20.0,
            time(at)
        );
    }
}

fn time(at: Timestamp) -> String {
    let ms = i64::try_from(at.0).unwrap_or_default();
    jiff::Timestamp::from_millisecond(ms)
        .map(|time| time.strftime("%m-%d %H:%M UTC").to_string())
        .unwrap_or_default()
}

fn rollout(out: &mut String, replay: &Replay, evidence: &[Evidence], scale: Scale, dash: &str) {
    let first = evidence.partition_point(|known| known.at <= replay.began);
    let last = evidence.partition_point(|known| known.at <= replay.ended);
    let own = &evidence[first..last];
    line(out, own.iter().map(|it| (it.at, it.log_harm)), scale, HARM, dash);
    let proofs = own.iter().filter_map(|it| Some((it.at, it.log_proof?)));
    line(out, proofs, scale, PROOF, dash);
    let colour = match replay.end {
        End::RolledBack => HARM,
        End::Promoted => PROOF,
        _ => "#999",
    };
    let x = scale.place(replay.ended);
    let _ = writeln!(
        out,
        "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\" stroke=\"{colour}\" \
         stroke-opacity=\"0.5\" stroke-dasharray=\"{dash}\"/>"
    );
}

/// One point for each pixel: the highest there.
fn line(
    out: &mut String,
    points: impl Iterator<Item = (Timestamp, f64)>,
    scale: Scale,
    colour: &str,
    dash: &str,
) {
    let mut pixels: Vec<(f64, f64)> = Vec::new();
    for (at, log) in points {
        let x = scale.place(at).round();
        match pixels.last_mut() {
            Some((pixel, highest)) if *pixel == x => *highest = highest.max(log),
            _ => pixels.push((x, log)),
        }
    }
    if pixels.is_empty() {
        return;
    }
    let text: Vec<_> = pixels.iter().map(|(x, log)| format!("{x},{:.1}", height(*log))).collect();
    let _ = writeln!(
        out,
        "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" \
         stroke-dasharray=\"{dash}\" points=\"{}\"/>",
        text.join(" ")
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Requests;

    #[test]
    fn a_picture_has_every_rollout_and_no_markup_of_a_name() {
        let known = |at: u64, log_harm: f64| Evidence {
            at: Timestamp(at),
            log_harm,
            log_proof: Some(-log_harm),
        };
        let replay = |began: u64, ended: u64, end: End| Replay {
            began: Timestamp(began),
            ended: Timestamp(ended),
            end,
            stages: Vec::new(),
            why: None,
            requests: Requests::default(),
            log_harm_max: 0.0,
            not_proven: Vec::new(),
        };
        let evidence = (1..2_000).map(|at| known(at * 1_000, at as f64 / 100.0)).collect();
        let rollouts =
            vec![replay(0, 900_000, End::RolledBack), replay(900_000, 1_999_000, End::Promoted)];
        let replayed = Replayed { looks: 1_999, rollouts, evidence };
        let thresholds = Thresholds { back: 100.0, hold: 20.0, proven: 20.0 };
        let one = svg(&[("<a>".to_owned(), &replayed)], thresholds);
        assert_eq!(one.matches("<polyline").count(), 4);
        assert!(one.contains("&lt;a&gt;") && !one.contains("<a>"));
        assert!(one.len() < 60_000, "a point for each pixel at most: {}", one.len());
        let empty = svg(&[("a".to_owned(), &Replayed::default())], thresholds);
        assert!(empty.ends_with("</svg>\n") && !empty.contains("NaN"), "{empty}");
    }
}
