//! Who is there, and what they may do: tokens, certificates and jobs become one person, and the fleet's roles decide.
//!
//! ```text
//! socket's uid | token | client certificate | GitHub's token  →  Identity  →  spec::access roles, region by region
//! ```
//!
//! Deny by default. Whoever may write the state directory may do everything: it holds the tokens.

pub mod audit;
pub mod github;
pub mod glass;
mod keep;
pub mod limit;
pub mod token;

use std::collections::BTreeSet;

use crate::spec::access::{Access, Permission};
use crate::units::{RegionName, ServiceName};

/// Somebody who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The person's name, which is what approvals count.
    pub name: String,
    /// How they came.
    pub via: Via,
    /// What the token they came with is limited to; none: all that the person may.
    pub scopes: Option<BTreeSet<Permission>>,
}

/// How somebody came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// The user who runs Tidegate, through its socket: may do everything.
    Owner,
    /// Another user of this machine, through the socket.
    Socket,
    /// A token; its id.
    Token(String),
    /// A client certificate.
    Certificate,
    /// A job of GitHub Actions.
    Github,
}

impl Via {
    /// For the audit: never a secret.
    #[must_use]
    pub fn note(&self) -> String {
        match self {
            Self::Owner => "socket, the user who runs it".to_owned(),
            Self::Socket => "socket".to_owned(),
            Self::Token(id) => format!("token {id}"),
            Self::Certificate => "client certificate".to_owned(),
            Self::Github => "GitHub Actions".to_owned(),
        }
    }
}

/// Why something is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} may not `{permission}` {service} in {}", names(regions))]
pub struct Denied {
    /// Who.
    pub name: String,
    /// What.
    pub permission: Permission,
    /// Of which service.
    pub service: ServiceName,
    /// Where it is missing.
    pub regions: Vec<RegionName>,
}

fn names(regions: &[RegionName]) -> String {
    let names: Vec<_> = regions.iter().map(ToString::to_string).collect();
    names.join(", ")
}

impl Identity {
    /// The user who runs Tidegate.
    #[must_use]
    pub fn owner(name: String) -> Self {
        Self { name, via: Via::Owner, scopes: None }
    }

    /// Whether they may do this in all these regions.
    ///
    /// # Errors
    /// They may not; the regions in which a grant is missing.
    pub fn may<'a>(
        &self,
        access: &Access,
        permission: Permission,
        service: &ServiceName,
        regions: impl IntoIterator<Item = &'a RegionName>,
    ) -> Result<(), Denied> {
        let regions = regions.into_iter();
        let in_scope = self.scopes.as_ref().is_none_or(|scopes| scopes.contains(&permission));
        let missing: Vec<_> = match (in_scope, &self.via) {
            (true, Via::Owner) => Vec::new(),
            (true, _) => access.missing(&self.name, permission, service, regions),
            (false, _) => regions.cloned().collect(),
        };
        if missing.is_empty() && in_scope {
            return Ok(());
        }
        let (name, service) = (self.name.clone(), service.clone());
        Err(Denied { name, permission, service, regions: missing })
    }
}

/// Everybody who may do one of these in all these regions.
#[must_use]
pub fn who_may<'a>(
    access: &Access,
    permissions: &[Permission],
    service: &ServiceName,
    regions: impl IntoIterator<Item = &'a RegionName> + Clone,
) -> BTreeSet<String> {
    let may = |name: &&String| {
        permissions
            .iter()
            .any(|one| access.missing(name, *one, service, regions.clone()).is_empty())
    };
    access.people.keys().filter(may).cloned().collect()
}
