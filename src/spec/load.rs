//! The front door: from paths, or from texts alone, to a fleet and a plan, with every problem at once.

use std::collections::BTreeMap;
use std::path::Path;

use super::analysis::{self, AnalysisFile};
use super::build;
use super::codes;
use super::decode::Decoder;
use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::file::{self, Span};
use super::fleet::Fleet;
use super::fleet_file;
use super::pipeline::{self, PipelineFile};
use super::plan::Plan;
use super::reason;
use crate::units::{AnalysisName, ServiceName};

/// Most analyses in one folder.
const ANALYSES_MAX: usize = 1_000;

/// Reads and checks a fleet file. The fleet is there exactly when no problem is an error.
#[must_use]
pub fn load_fleet(path: &Path) -> (Option<Fleet>, Diagnostics) {
    match file::read(path) {
        Ok(text) => fleet_from_text(&file::shown_path(path), &text),
        Err(problem) => (None, only(problem)),
    }
}

/// As [`load_fleet`] without touching the disk. `name` is the file in messages.
#[must_use]
pub fn fleet_from_text(name: &str, text: &str) -> (Option<Fleet>, Diagnostics) {
    let mut decoder = Decoder::new(name);
    let fleet = fleet_file::decode(&mut decoder, text);
    let mut problems = decoder.problems;
    if let Some(fleet) = &fleet {
        reason::fleet(fleet, &mut problems);
    }
    (fleet.filter(|_| !problems.has_errors()), problems)
}

/// Reads and checks a pipeline with the analyses (`*.yaml`) of one folder against a fleet.
///
/// The plan is there exactly when no problem is an error. Problems of the fleet itself are not repeated.
#[must_use]
pub fn load_plan(
    pipeline: &Path,
    analyses: &Path,
    fleet: &Fleet,
    service: &ServiceName,
) -> (Option<Plan>, Diagnostics) {
    let mut problems = Diagnostics::default();
    let files = analysis_texts(analyses, &mut problems);
    let text = match file::read(pipeline) {
        Ok(text) => text,
        Err(problem) => {
            problems.push(problem);
            return (None, problems);
        }
    };
    let (plan, more) = plan_from_text(&file::shown_path(pipeline), &text, &files, fleet, service);
    problems.extend(more);
    (plan.filter(|_| !problems.has_errors()), problems)
}

/// As [`load_plan`] without touching the disk. `analyses` are (stem, file, text).
#[must_use]
pub fn plan_from_text(
    name: &str,
    text: &str,
    analyses: &[(String, String, String)],
    fleet: &Fleet,
    service: &ServiceName,
) -> (Option<Plan>, Diagnostics) {
    let mut problems = Diagnostics::default();
    let analyses: BTreeMap<AnalysisName, AnalysisFile> =
        analysis::decode_all(analyses, &mut problems);
    let Some(pipeline) = pipeline_from_text(name, text, &mut problems) else {
        return (None, problems);
    };
    let plan = build::plan(&pipeline, &analyses, fleet, service, &mut problems);
    if let Some(plan) = &plan {
        reason::plan(&pipeline, plan, fleet, &mut problems);
    }
    (plan, problems)
}

fn pipeline_from_text(name: &str, text: &str, problems: &mut Diagnostics) -> Option<PipelineFile> {
    let mut decoder = Decoder::new(name);
    let stem = Path::new(name)
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let pipeline = pipeline::decode(&mut decoder, &stem, text);
    problems.extend(decoder.problems);
    pipeline
}

/// Every `*.yaml` of a folder (not of its subfolders) as (stem, file, text), sorted by name.
fn analysis_texts(folder: &Path, problems: &mut Diagnostics) -> Vec<(String, String, String)> {
    let unreadable = |error: std::io::Error| Diagnostic {
        code: codes::UNREADABLE,
        severity: Severity::Error,
        message: format!("cannot read this folder: {error}"),
        help: "name the folder that holds the analyses".to_owned(),
        location: Span::START.location(&file::shown_path(folder)),
        length: 1,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            problems.push(unreadable(error));
            return Vec::new();
        }
    };
    let mut paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "yaml") && path.is_file()
        })
        .collect();
    paths.sort();
    paths.truncate(ANALYSES_MAX);
    let mut files = Vec::new();
    for path in paths {
        let stem =
            path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        match file::read(&path) {
            Ok(text) => files.push((stem, file::shown_path(&path), text)),
            Err(problem) => problems.push(problem),
        }
    }
    files
}

fn only(problem: Diagnostic) -> Diagnostics {
    let mut problems = Diagnostics::default();
    problems.push(problem);
    problems
}
