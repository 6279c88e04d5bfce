//! Traefik: one weighted service, whose weights Tidegate alone says, by a file or by what Traefik fetches here.
//!
//! ```text
//! set:  a new file in the folder that its file provider watches, or a new document for its HTTP provider
//! read: GET /api/http/services (what is in force, and its generation), /api/version (which process)
//! ```
//!
//! What is read is what Traefik runs, never what it was given: it ignores all changes while any file of the folder is
//! broken, and it fetches when it likes. The generation stands in the name of a second service beside the weighted one,
//! which no router uses: weights and generation come into force together, and the API shows both.
//!
//! Routers name one service. It is the weighted one, or, while requests are copied, a mirroring one over it.

mod document;
mod fetched;
mod file;
mod provider;
mod view;

pub use fetched::TraefikHttpBalancer;
pub use file::TraefikBalancer;
pub use provider::{Error, Provider, ProviderPort};
