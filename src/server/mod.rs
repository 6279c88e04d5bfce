//! The local API that the command line talks to.
