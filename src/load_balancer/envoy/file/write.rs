//! The route file itself. Blocking; runs on a thread for such work.

use std::path::PathBuf;

use serde_yaml::Value;

use super::super::reading::Expected;
use super::super::{Pair, affinity, marker, route};
use crate::load_balancer::owned::{self, Held};
use crate::ports::{Outcome, Split};
use crate::spec::fleet::Affinity;
use crate::units::Generation;

/// One more than a document may have, so that a longer one is found.
const BYTES_MAX: u64 = route::BYTES_MAX as u64 + 1;

/// Why the file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is in it.
    #[error("{0}")]
    Route(#[from] route::Error),
    /// The file as such.
    #[error(transparent)]
    Owned(#[from] owned::Error),
    /// Envoy tells the format by the ending.
    #[error("must end in .yaml, .yml or .json")]
    Ending,
    /// The RouteConfiguration's metadata is no mapping.
    #[error("metadata of the route is not a mapping of mappings")]
    Metadata,
}

impl Error {
    /// What is known about the effect: the file changes in the very last step only.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Owned(error) => error.outcome(),
            Self::Route(_) | Self::Ending | Self::Metadata => Outcome::Misconfigured,
        }
    }
}

/// One pair of clusters in one route of one file.
pub struct File {
    /// Where.
    pub path: PathBuf,
    /// Name of the RouteConfiguration.
    pub route: String,
    /// The clusters.
    pub pair: Pair,
    /// Users stay on one arm.
    pub affinity: Option<Affinity>,
}

impl File {
    /// What the file asks of Envoy; of places that differ, the first.
    pub fn read(&self) -> Result<Expected, Error> {
        let mut document = self.load()?;
        let route = route::find(&mut document, &self.route)?;
        let splits = route::splits(route, &self.pair)?;
        let generation = marker::read(route, &self.pair);
        // `splits` holds at least one.
        let split =
            splits.into_iter().next().ok_or_else(|| route::Error::NoRoute(self.route.clone()))?;
        Ok(Expected { split, generation })
    }

    /// Replaces the weights, keeping everything else; readers see the old file or the new one, whole.
    pub fn write(&self, split: &Split, generation: Generation) -> Result<(), Error> {
        let held = Held::lock(&self.path, BYTES_MAX)?;
        held.write(&self.rewritten(split, generation)?)?;
        Ok(())
    }

    /// The file's text with other weights.
    pub fn rewritten(&self, split: &Split, generation: Generation) -> Result<String, Error> {
        let json = self.is_json()?;
        let mut document = self.load()?;
        let route = route::find(&mut document, &self.route)?;
        if let Some(found) = marker::read(route, &self.pair).filter(|found| *found > generation) {
            return Err(owned::Error::Superseded { found, asked: generation }.into());
        }
        route::set_split(route, &self.pair, split)?;
        if let Some(affinity) = &self.affinity {
            affinity::write(route, &self.pair, affinity)?;
        }
        if !marker::write(route, &self.pair, generation) {
            return Err(Error::Metadata);
        }
        set_version(&mut document);
        render(&document, json)
    }

    fn is_json(&self) -> Result<bool, Error> {
        match self.path.extension().and_then(std::ffi::OsStr::to_str) {
            Some("json") => Ok(true),
            Some("yaml" | "yml") => Ok(false),
            _ => Err(Error::Ending),
        }
    }

    fn load(&self) -> Result<Value, Error> {
        let text = owned::read(&self.path, BYTES_MAX)?;
        Ok(route::parse(&text.ok_or(owned::Error::Missing)?)?)
    }
}

/// A file of resources tells its generations as version; a bare RouteConfiguration has no place for one.
fn set_version(document: &mut Value) {
    let resources = document.get("resources").and_then(Value::as_sequence);
    let texts: Vec<_> = resources.into_iter().flatten().map(marker::version_text).collect();
    let version = texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
    if let Some(mapping) =
        document.as_mapping_mut().filter(|mapping| mapping.contains_key("resources"))
    {
        mapping.insert("version_info".into(), version.into());
    }
}

fn render(document: &Value, json: bool) -> Result<String, Error> {
    let failed = |text: String| Error::Route(route::Error::Syntax(text));
    if json {
        return serde_json::to_string_pretty(document).map_err(|error| failed(error.to_string()));
    }
    serde_yaml::to_string(document).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::load_balancer::pair::tests::{pair, split};

    const TEXT: &str = "version_info: mine\nresources:\n\
        - {name: admin, virtual_hosts: []}\n\
        - {name: web, x: [{weighted_clusters: {clusters: [{name: api-blue, weight: 100}, {name: api-green, weight: 0}]}}]}\n";

    fn file(text: &str, name: &str) -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        (directory, File { path, route: "web".to_owned(), pair: pair(), affinity: None })
    }

    fn set(file: &File, percent: f64, generation: u64) -> Result<(), Error> {
        file.write(&split(percent), Generation(generation))
    }

    #[test]
    fn what_is_written_is_read_and_the_rest_stays() {
        for name in ["rds.yaml", "rds.json"] {
            let text = serde_yaml::from_str::<Value>(TEXT).unwrap();
            let (directory, file) = file(&render(&text, name.ends_with("json")).unwrap(), name);
            assert_eq!(file.read().unwrap(), Expected { split: split(0.0), generation: None });
            set(&file, 5.0, 3).unwrap();
            set(&file, 5.0, 3).unwrap();
            assert_eq!(
                file.read().unwrap(),
                Expected { split: split(5.0), generation: Some(Generation(3)) }
            );
            let written = file.load().unwrap();
            assert_eq!(written["version_info"], "api-blue/api-green=3");
            assert_eq!(written["resources"][0], text["resources"][0]);
            assert_eq!(
                fs::read_dir(directory.path()).unwrap().count(),
                1,
                "no temporary file is left"
            );
        }
    }

    #[test]
    fn an_older_generation_is_refused_and_changes_nothing() {
        let (_directory, file) = file(TEXT, "rds.yaml");
        set(&file, 5.0, 3).unwrap();
        let error = set(&file, 50.0, 2).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Superseded);
        assert_eq!(file.read().unwrap().split, split(5.0));
    }

    #[test]
    fn permissions_stay() {
        use std::os::unix::fs::PermissionsExt;
        let (_directory, file) = file(TEXT, "rds.yaml");
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o640)).unwrap();
        set(&file, 5.0, 3).unwrap();
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn what_cannot_be_written_says_why() {
        let (directory, mut one) = file(TEXT, "rds.yaml");
        let link = directory.path().join("link.yaml");
        std::os::unix::fs::symlink(&one.path, &link).unwrap();
        one.path = link;
        assert!(matches!(set(&one, 5.0, 1), Err(Error::Owned(owned::Error::NotAFile))));
        one.path = directory.path().join("missing.yaml");
        assert!(matches!(set(&one, 5.0, 1), Err(Error::Owned(owned::Error::Missing))));
        one.path = directory.path().join("rds.pb");
        assert!(matches!(set(&one, 5.0, 1), Err(Error::Ending)));
        let (_directory, foreign) = file("resources: 3", "rds.yaml");
        assert!(matches!(set(&foreign, 5.0, 1), Err(Error::Route(_))));
    }

    #[test]
    fn two_services_share_a_file() {
        let both = TEXT.replace(
            "x: [",
            "x: [{weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b}]}}, ",
        );
        let (_directory, first) = file(&both, "rds.yaml");
        let clusters =
            [("blue".parse().unwrap(), "a".to_owned()), ("green".parse().unwrap(), "b".to_owned())];
        let second = File {
            path: first.path.clone(),
            route: "web".to_owned(),
            pair: Pair::new(&clusters.into()).unwrap(),
            affinity: None,
        };
        set(&first, 5.0, 9).unwrap();
        set(&second, 25.0, 2).unwrap();
        assert_eq!(
            first.read().unwrap(),
            Expected { split: split(5.0), generation: Some(Generation(9)) }
        );
        assert_eq!(
            second.read().unwrap(),
            Expected { split: split(25.0), generation: Some(Generation(2)) }
        );
        assert_eq!(first.load().unwrap()["version_info"], "api-blue/api-green=9 a/b=2");
    }
}
