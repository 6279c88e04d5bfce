//! Who may do what: roles allow verbs per service and region, people have roles. Nothing that is not allowed is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::fleet::Secret;
use crate::units::{RegionName, ServiceName};

/// Something that may be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// See rollouts, their evidence and their history.
    Read,
    /// Begin a rollout, or the same once more.
    Start,
    /// One step forward without proof.
    Promote,
    /// Say yes where the pipeline asks for approvals.
    Approve,
    /// Nothing is raised until `resume`.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Ask for the way back.
    Rollback,
    /// Back from a promotion.
    Undo,
    /// Out of quarantine.
    Release,
    /// Take a service over as it stands.
    Adopt,
    /// No version begins any more, or again.
    Freeze,
    /// Look at what was done in an emergency.
    Review,
    /// Read the audit.
    Audit,
}

impl Permission {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Self); 13] = [
        ("read", Self::Read),
        ("start", Self::Start),
        ("promote", Self::Promote),
        ("approve", Self::Approve),
        ("pause", Self::Pause),
        ("resume", Self::Resume),
        ("rollback", Self::Rollback),
        ("undo", Self::Undo),
        ("release", Self::Release),
        ("adopt", Self::Adopt),
        ("freeze", Self::Freeze),
        ("review", Self::Review),
        ("audit", Self::Audit),
    ];
}

impl fmt::Display for Permission {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, one)| one == self).map_or("", |(name, _)| name);
        out.pad(name)
    }
}

impl std::str::FromStr for Permission {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, one)| *one);
        let names = Self::ALL.map(|(name, _)| name).join(", ");
        found.ok_or_else(|| format!("there is no permission `{text}`; there are {names}"))
    }
}

/// Who may do what. Empty: only the user who runs Tidegate, through its socket.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Access {
    /// Roles by name.
    pub roles: BTreeMap<String, Role>,
    /// People and machines by name; the name is the identity that approvals count.
    pub people: BTreeMap<String, Person>,
    /// All that a role allows in a region, where the region narrows it.
    pub narrowed: BTreeMap<RegionName, BTreeMap<String, BTreeSet<Permission>>>,
}

/// What a role allows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Role {
    /// Verbs.
    pub allow: BTreeSet<Permission>,
    /// Of these services; none: of all.
    pub services: Option<BTreeSet<ServiceName>>,
    /// In these regions; none: everywhere.
    pub regions: Option<BTreeSet<RegionName>>,
}

/// A person or a machine, however they come.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Person {
    /// Names of roles.
    pub roles: BTreeSet<String>,
    /// Their user id on this machine, for the socket.
    pub uid: Option<u32>,
    /// A DNS name or URI in their client certificate.
    pub certificate: Option<String>,
    /// A job of GitHub Actions.
    pub github: Option<GithubJob>,
}

/// A job of GitHub Actions, by what its token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GithubJob {
    /// The repository's number, which outlives its name.
    pub repository_id: String,
    /// The environment that it must run in.
    pub environment: String,
    /// The workflow that it must be, with its reference.
    pub job_workflow_ref: String,
}

impl Access {
    /// Whether somebody may do this to a service in a region.
    #[must_use]
    pub fn may(
        &self,
        person: &str,
        permission: Permission,
        service: &ServiceName,
        region: &RegionName,
    ) -> bool {
        let Some(person) = self.people.get(person) else { return false };
        person.roles.iter().any(|name| {
            let narrowed = self.narrowed.get(region).and_then(|roles| roles.get(name));
            self.roles.get(name).is_some_and(|role| role.allows(permission, service, region))
                && narrowed.is_none_or(|left| left.contains(&permission))
        })
    }

    /// Regions of `regions` in which they may not; an action needs a grant in each.
    #[must_use]
    pub fn missing<'a>(
        &self,
        person: &str,
        permission: Permission,
        service: &ServiceName,
        regions: impl IntoIterator<Item = &'a RegionName>,
    ) -> Vec<RegionName> {
        let missing = |region: &&RegionName| !self.may(person, permission, service, region);
        regions.into_iter().filter(missing).cloned().collect()
    }
}

impl Role {
    fn allows(&self, permission: Permission, service: &ServiceName, region: &RegionName) -> bool {
        self.allow.contains(&permission)
            && self.services.as_ref().is_none_or(|services| services.contains(service))
            && self.regions.as_ref().is_none_or(|regions| regions.contains(region))
    }
}

/// Where the API is, beside the socket.
#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    /// Address and port.
    pub listen: SocketAddr,
    /// Names that clients call it by; the address always counts.
    pub hosts: BTreeSet<String>,
    /// Needed beyond loopback.
    pub tls: Option<ApiTls>,
    /// Tokens of GitHub Actions are taken.
    pub github: Option<GithubIssuer>,
}

/// TLS 1.3 of the API.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiTls {
    /// Server certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: Secret,
    /// Authority of clients' certificates, PEM.
    pub client_ca: Option<PathBuf>,
    /// Certificates that no longer count, PEM.
    pub revoked: Option<PathBuf>,
}

/// Who signs the tokens of GitHub Actions.
#[derive(Debug, Clone, PartialEq)]
pub struct GithubIssuer {
    /// The issuer, whose keys are at `/.well-known/jwks` below it.
    pub issuer: String,
    /// Whom the tokens must be for.
    pub audience: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<T: std::str::FromStr<Err: fmt::Debug> + Ord>(names: &[&str]) -> BTreeSet<T> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn access() -> Access {
        let person = |roles: &[&str]| Person {
            roles: roles.iter().map(|name| (*name).to_owned()).collect(),
            ..Person::default()
        };
        let operator = Role { allow: set(&["read", "promote", "rollback"]), ..Role::default() };
        let local = Role {
            allow: set(&["read", "pause"]),
            services: Some(set(&["web"])),
            regions: Some(set(&["eu_west_1"])),
        };
        let narrowed = [("operator".to_owned(), set(&["read", "rollback"]))].into();
        Access {
            roles: [("operator".to_owned(), operator), ("local".to_owned(), local)].into(),
            people: [
                ("ada".to_owned(), person(&["operator"])),
                ("ben".to_owned(), person(&["local"])),
                ("eve".to_owned(), person(&["operator", "local"])),
                ("kim".to_owned(), person(&["gone"])),
            ]
            .into(),
            narrowed: [("eu_west_1".parse().unwrap(), narrowed)].into(),
        }
    }

    #[test]
    fn nothing_is_allowed_that_no_role_allows() {
        let access = access();
        let may = |person: &str, permission, service: &str, region: &str| {
            let (service, region) = (service.parse().unwrap(), region.parse().unwrap());
            access.may(person, permission, &service, &region)
        };
        assert!(may("ada", Permission::Promote, "web", "us_east_1"));
        assert!(!may("ada", Permission::Promote, "web", "eu_west_1"), "narrowed there");
        assert!(may("ada", Permission::Rollback, "web", "eu_west_1"));
        assert!(!may("ada", Permission::Pause, "web", "us_east_1"));
        assert!(may("ben", Permission::Pause, "web", "eu_west_1"));
        assert!(!may("ben", Permission::Pause, "web", "us_east_1"));
        assert!(!may("ben", Permission::Pause, "shop", "eu_west_1"));
        // What one role has lost in a region another one may still allow.
        assert!(may("eve", Permission::Pause, "web", "eu_west_1"));
        assert!(!may("kim", Permission::Read, "web", "eu_west_1"));
        assert!(!may("nobody", Permission::Read, "web", "eu_west_1"));
    }

    #[test]
    fn several_regions_need_a_grant_in_each() {
        let regions: BTreeSet<RegionName> = set(&["eu_west_1", "us_east_1"]);
        let service = "web".parse().unwrap();
        let missing =
            |person: &str, permission| access().missing(person, permission, &service, &regions);
        assert_eq!(missing("ada", Permission::Rollback), []);
        assert_eq!(missing("ada", Permission::Promote), ["eu_west_1".parse().unwrap()]);
        assert_eq!(missing("ben", Permission::Read), ["us_east_1".parse().unwrap()]);
    }

    #[test]
    fn every_permission_has_a_name_of_its_own() {
        for (name, permission) in Permission::ALL {
            assert_eq!(name.parse(), Ok(permission));
            assert_eq!(permission.to_string(), name);
            assert_eq!(serde_json::to_value(permission).unwrap(), name);
        }
        assert!("own".parse::<Permission>().is_err());
    }
}
