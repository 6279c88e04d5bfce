//! What every target at AWS needs: a region, a way in, and for emulators another address.

use crate::spec::fleet::Secret;
#[cfg(feature = "files")]
use crate::spec::{
    codes,
    decode::{Decoder, Fields},
    file::Node,
    fleet_file::{decode_secret, decode_url},
};

/// How AWS is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsAccess {
    /// The region that is asked and that requests are signed for.
    pub region: String,
    /// Another address than AWS's own.
    pub endpoint: Option<String>,
    /// The profile of AWS's own configuration files; `None`: what the default chain finds.
    pub profile: Option<String>,
    /// Keys of our own, instead of the default chain.
    pub credentials: Option<AwsCredentials>,
}

/// Where the keys are, read again for each call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsCredentials {
    /// The access key's id.
    pub access_key: Secret,
    /// The secret access key.
    pub secret_key: Secret,
    /// The session token of keys that expire.
    pub session_token: Option<Secret>,
}

/// What an ARN of the load balancing service names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg(feature = "files")]
pub(super) enum ArnOf {
    Rule,
    Listener,
    TargetGroup,
}

#[cfg(feature = "files")]
impl ArnOf {
    /// The beginning of the resource, and how many parts follow it.
    fn shape(self) -> (&'static [&'static str], usize) {
        match self {
            Self::Rule => (&["listener-rule", "app"], 4),
            Self::Listener => (&["listener", "app"], 3),
            Self::TargetGroup => (&["targetgroup"], 2),
        }
    }
}

#[cfg(feature = "files")]
const ARN_BYTES_MAX: usize = 512;

/// The keys about access; `region` may be left out where there is a usual one.
#[cfg(feature = "files")]
pub(super) fn decode_access(
    decoder: &mut Decoder,
    fields: &mut Fields<'_>,
    usual_region: Option<&str>,
) -> Option<AwsAccess> {
    let region = match usual_region {
        None => fields.require(decoder, "region", decode_region),
        Some(usual) => {
            let given = fields.key_span("region").is_some();
            let region = fields.get(decoder, "region", decode_region);
            if given { region } else { Some(usual.to_owned()) }
        }
    };
    let endpoint = fields.get(decoder, "endpoint", decode_endpoint);
    let profile = fields.get(decoder, "profile", Decoder::text);
    let credentials = fields.get(decoder, "credentials", decode_credentials);
    if let (Some(span), Some(_)) = (fields.key_span("credentials"), fields.key_span("profile")) {
        let message = "both `profile` and `credentials`";
        decoder.error(codes::INVALID_VALUE, span, message, "keep one of the two");
    }
    Some(AwsAccess { region: region?, endpoint, profile, credentials })
}

#[cfg(feature = "files")]
fn decode_region(decoder: &mut Decoder, node: &Node) -> Option<String> {
    let help = "write AWS's own name of it, such as eu-west-1";
    decoder.parsed(node, codes::INVALID_NAME, help, |text| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let named = text.len() <= 32
            && text.contains('-')
            && text.chars().all(plain)
            && text.ends_with(|c: char| c.is_ascii_digit());
        if named { Ok(text.to_owned()) } else { Err("this is no region of AWS") }
    })
}

/// Signed requests over plain HTTP show what they ask to everybody on the way: only on this machine.
#[cfg(feature = "files")]
fn decode_endpoint(decoder: &mut Decoder, node: &Node) -> Option<String> {
    let url = decode_url(decoder, node)?;
    let Some(rest) = url.strip_prefix("http://") else { return Some(url) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if is_loopback(authority) {
        return Some(url);
    }
    let help = "use https, or an emulator on 127.0.0.1";
    let message = "plain http leaves this machine here";
    decoder.error(codes::INVALID_URL, node.span, message, help);
    None
}

#[cfg(feature = "files")]
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let literal = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    literal || host == "localhost"
}

#[cfg(feature = "files")]
fn decode_credentials(decoder: &mut Decoder, node: &Node) -> Option<AwsCredentials> {
    let mut fields = decoder.fields(node)?;
    let access_key = fields.require(decoder, "access_key", decode_secret);
    let secret_key = fields.require(decoder, "secret_key", decode_secret);
    let session_token = fields.get(decoder, "session_token", decode_secret);
    fields.finish(decoder);
    Some(AwsCredentials { access_key: access_key?, secret_key: secret_key?, session_token })
}

/// Whether this ARN names such a thing in this region; else what is wrong with it.
#[cfg(feature = "files")]
pub(super) fn check_arn(text: &str, of: ArnOf, region: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let [arn, partition, service, at, account, resource] = parts[..] else {
        return Err("this is no ARN".to_owned());
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    let numbered = account.len() == 12 && account.chars().all(|c| c.is_ascii_digit());
    let partitioned = partition == "aws" || partition.starts_with("aws-");
    if arn != "arn" || !partitioned || !numbered || !text.chars().all(plain) {
        return Err("this is no ARN".to_owned());
    }
    if text.len() > ARN_BYTES_MAX {
        return Err("this ARN is too long".to_owned());
    }
    if service != "elasticloadbalancing" {
        return Err(format!("this ARN is of `{service}`, not of elasticloadbalancing"));
    }
    if at != region {
        return Err(format!("this ARN is of region `{at}`, not of {region}"));
    }
    let (begin, after) = of.shape();
    let path: Vec<&str> = resource.split('/').collect();
    let fits = path.len() == begin.len() + after && path.starts_with(begin);
    if fits && path.iter().all(|part| !part.is_empty()) {
        return Ok(());
    }
    Err(format!("this ARN does not name a {}", begin.join(" of kind ")))
}

#[cfg(all(test, feature = "files"))]
mod tests {
    use super::*;

    #[test]
    fn an_arn_names_what_it_should_where_it_should() {
        let rule =
            "arn:aws:elasticloadbalancing:eu-west-1:123456789012:listener-rule/app/web/1/2/3";
        let group = "arn:aws-cn:elasticloadbalancing:eu-west-1:123456789012:targetgroup/blue/1";
        assert_eq!(check_arn(rule, ArnOf::Rule, "eu-west-1"), Ok(()));
        assert_eq!(check_arn(group, ArnOf::TargetGroup, "eu-west-1"), Ok(()));
        for (text, of, word) in [
            (rule, ArnOf::Listener, "name a listener of kind app"),
            (group, ArnOf::Rule, "name a listener-rule of kind app"),
            ("arn:aws:iam:eu-west-1:123456789012:role/x", ArnOf::Rule, "of `iam`"),
            ("blue", ArnOf::TargetGroup, "no ARN"),
            ("arn:aws:elasticloadbalancing:eu-west-1:12:targetgroup/b/1", ArnOf::Rule, "no ARN"),
            (
                "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/b/'",
                ArnOf::Rule,
                "no ARN",
            ),
        ] {
            let said = check_arn(text, of, "eu-west-1").unwrap_err();
            assert!(said.contains(word), "{text}: {said}");
        }
        let said = check_arn(rule, ArnOf::Rule, "us-east-1").unwrap_err();
        assert!(said.contains("`eu-west-1`, not of us-east-1"), "{said}");
    }

    #[test]
    fn loopback_is_this_machine() {
        for here in ["127.0.0.1:5001", "localhost", "[::1]:80", "127.9.9.9"] {
            assert!(is_loopback(here), "{here}");
        }
        for away in ["10.0.0.1", "localhost.example.org:80", "[::2]", ""] {
            assert!(!is_loopback(away), "{away}");
        }
    }
}
