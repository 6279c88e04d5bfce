//! Reading the files that a command names, and showing every problem in them at once.

use std::path::{Path, PathBuf};

use clap::Args;
use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource,
    Severity as Level,
};

use super::exit::Exit;
use super::failure::Failure;
use super::output::note;
use crate::server::dto::TextFile;
use crate::spec;
use crate::spec::fleet::Fleet;
use crate::spec::plan::Plan;
use crate::spec::{Diagnostic, Diagnostics, Severity, load_fleet, load_plan};
use crate::units::ServiceName;

/// Where the operator's and the owner's files are.
#[derive(Debug, Clone, Args)]
pub struct FleetArgs {
    /// The operator's file
    #[arg(
        long,
        visible_alias = "config",
        value_name = "FILE",
        default_value = "tidegate.yaml",
        env = "TIDEGATE_FLEET"
    )]
    pub fleet: PathBuf,
}

/// Which pipeline, for which service.
#[derive(Debug, Clone, Args)]
pub struct PipelineArgs {
    /// The pipeline
    pub pipeline: PathBuf,
    /// The service; may be left out when the fleet has only one
    #[arg(long, value_name = "NAME")]
    pub service: Option<ServiceName>,
    /// Folder of the analyses [default: `analysis` beside the pipeline's folder]
    #[arg(long, value_name = "FOLDER")]
    pub analysis: Option<PathBuf>,
    #[command(flatten)]
    pub fleet: FleetArgs,
}

/// Files that hold together.
pub struct Loaded {
    /// The fleet.
    pub fleet: Fleet,
    /// The service.
    pub service: ServiceName,
    /// The plan.
    pub plan: Plan,
    /// What is to be noted about them.
    pub problems: Diagnostics,
}

/// Every problem of the files, and what they come to if there is no error.
pub fn examine(args: &PipelineArgs) -> (Option<Loaded>, Diagnostics) {
    let (fleet, mut problems) = load_fleet(&args.fleet.fleet);
    let Some(fleet) = fleet else { return (None, problems) };
    let service = match service_of(&fleet, args.service.as_ref()) {
        Ok(service) => service,
        Err(failure) => {
            note(&format!("error: {}", failure.what));
            return (None, problems);
        }
    };
    let (plan, more) = load_plan(
        &args.pipeline,
        &analysis_folder(&args.pipeline, args.analysis.as_deref()),
        &fleet,
        &service,
    );
    problems.extend(more);
    match plan {
        Some(plan) if !problems.has_errors() => {
            let loaded = Loaded { fleet, service, plan, problems: problems.clone() };
            (Some(loaded), problems)
        }
        _ => (None, problems),
    }
}

/// The files, or their problems on standard error.
pub fn load(args: &PipelineArgs) -> Result<Loaded, Failure> {
    let (loaded, problems) = examine(args);
    loaded.ok_or_else(|| {
        show(&problems);
        Failure::new(format!("{} problems in these files", problems.count(Severity::Error)))
            .exit(Exit::Usage)
            .help("`tidegate check` shows them; `tidegate explain CODE` says more about one")
    })
}

/// The fleet alone, or its problems on standard error.
pub fn fleet(args: &FleetArgs) -> Result<Fleet, Failure> {
    let (fleet, problems) = load_fleet(&args.fleet);
    fleet.ok_or_else(|| {
        show(&problems);
        Failure::new(format!("{} cannot be used", args.fleet.display())).exit(Exit::Usage)
    })
}

/// The service that is meant.
pub fn service_of(fleet: &Fleet, named: Option<&ServiceName>) -> Result<ServiceName, Failure> {
    let known = || fleet.services.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match named {
        Some(name) if fleet.services.contains_key(name) => Ok(name.clone()),
        Some(name) => Err(Failure::new(format!("the fleet has no service `{name}`"))
            .exit(Exit::Usage)
            .help(format!("it has: {}", known()))),
        None => match fleet.services.keys().next() {
            Some(only) if fleet.services.len() == 1 => Ok(only.clone()),
            _ => Err(Failure::new("which service?")
                .exit(Exit::Usage)
                .help(format!("--service with one of: {}", known()))),
        },
    }
}

/// The texts of a pipeline and its analyses as they are, for somebody else to check.
pub fn texts(
    pipeline: &Path,
    analysis: Option<&Path>,
) -> Result<(TextFile, Vec<TextFile>), Failure> {
    let text = |path: &Path| {
        let read = spec::file::read(path);
        let text = read.map_err(|problem| Failure::new(problem.to_string()).exit(Exit::Usage))?;
        Ok::<_, Failure>(TextFile { name: spec::file::shown_path(path), text })
    };
    let folder = analysis_folder(pipeline, analysis);
    let unreadable = |error: std::io::Error| {
        Failure::new(format!("cannot read the folder {}: {error}", folder.display()))
            .exit(Exit::Usage)
    };
    let entries = std::fs::read_dir(&folder).map_err(unreadable)?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "yaml") && path.is_file());
    paths.sort();
    let analyses = paths.iter().map(|path| text(path)).collect::<Result<_, _>>()?;
    Ok((text(pipeline)?, analyses))
}

fn analysis_folder(pipeline: &Path, analysis: Option<&Path>) -> PathBuf {
    if let Some(folder) = analysis {
        return folder.to_owned();
    }
    let beside = pipeline.parent().map(|folder| folder.join("../analysis"));
    match beside {
        Some(folder) if folder.is_dir() && pipeline.parent() != Some(Path::new("")) => {
            tidy(&folder)
        }
        _ => PathBuf::from("analysis"),
    }
}

/// `pipelines/../analysis` is `analysis`: shorter in messages.
fn tidy(folder: &Path) -> PathBuf {
    let mut parts: Vec<_> = Vec::new();
    for part in folder.components() {
        match (part, parts.last()) {
            (std::path::Component::ParentDir, Some(std::path::Component::Normal(_))) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.iter().collect()
}

/// Writes every problem to standard error, with the line it is on where the file can be read.
pub fn show(problems: &Diagnostics) {
    for problem in problems.iter() {
        note(&rendered(problem));
    }
}

fn rendered(problem: &Diagnostic) -> String {
    let Ok(text) = std::fs::read_to_string(&problem.location.file) else {
        return problem.to_string();
    };
    let line = problem.location.line.saturating_sub(1) as usize;
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(start..).unwrap_or_default();
    let column = problem.location.column.saturating_sub(1) as usize;
    let offset: usize = rest.chars().take(column).map(char::len_utf8).sum();
    let level = match problem.severity {
        Severity::Error => Level::Error,
        Severity::Warning => Level::Warning,
        Severity::Note => Level::Advice,
    };
    let diagnostic = MietteDiagnostic::new(problem.message.clone())
        .with_code(problem.code)
        .with_severity(level)
        .with_help(problem.help.clone())
        .with_label(LabeledSpan::at(
            start + offset..start + offset + problem.length as usize,
            "here",
        ));
    let source = NamedSource::new(&problem.location.file, text);
    let report = miette::Report::new(diagnostic).with_source_code(source);
    let coloured = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let theme =
        if coloured { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let mut out = String::new();
    match GraphicalReportHandler::new_themed(theme)
        .with_context_lines(1)
        .render_report(&mut out, report.as_ref())
    {
        Ok(()) => out,
        Err(_) => problem.to_string(),
    }
}
