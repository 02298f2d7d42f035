//! Certificates as bytes, by `rcgen`: X.509 as RFC 5280 profiles it.
//!
//! Validity is in whole days and begins a day early: clients' clocks differ.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
    PKCS_ECDSA_P256_SHA256,
};

use super::{AuthorityError, Hosts};

/// How long an authority is valid: longer than most sites keep a machine, shorter than a key should live.
pub(super) const AUTHORITY_DAYS: i64 = 5 * 365;

/// How long a leaf is valid. Clients refuse more than 398 days; less would do, since leaves are renewed by themselves, but a node that
/// wakes with a wrong clock should still get on.
pub(super) const LEAF_DAYS: i64 = 90;

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

impl Validity {
    /// `days` from `now` on, and a day before.
    pub(super) fn of_days(days: i64, now: Timestamp) -> Self {
        let after = |days: i64| {
            let there = now.checked_add(SignedDuration::from_hours(24 * days));
            midnight(there.unwrap_or(now))
        };
        Self {
            from: after(-1),
            until: after(days),
        }
    }

    fn write(self, params: &mut CertificateParams) {
        for (at, field) in [
            (self.from, &mut params.not_before),
            (self.until, &mut params.not_after),
        ] {
            let day = at.to_zoned(TimeZone::UTC).date();
            let small = |number: i8| u8::try_from(number).unwrap_or(1);
            *field = rcgen::date_time_ymd(i32::from(day.year()), small(day.month()), small(day.day()));
        }
    }
}

/// The beginning of the day.
fn midnight(at: Timestamp) -> Timestamp {
    let day = at.as_second().div_euclid(86_400) * 86_400;
    Timestamp::from_second(day).unwrap_or(at)
}

/// A new key: ECDSA with P-256, which every client of the last ten years knows.
pub(super) fn new_key() -> Result<KeyPair, AuthorityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(minting("a key"))
}

/// What an authority says about itself: `name`, and that it may sign for `hosts` and nothing else.
pub(super) fn authority(name: &str, hosts: &Hosts, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    validity.write(&mut params);
    params.distinguished_name = called(name);
    // One below it: a successor that it vouches for.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(constraints(hosts));
    params
}

/// The predecessor's word for a successor: its key and its constraints, signed by the predecessor.
pub(super) fn vouch(
    mut successor: CertificateParams,
    key: &KeyPair,
    by: &Issuer<'_, KeyPair>,
) -> Result<Certificate, AuthorityError> {
    successor.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    successor.use_authority_key_identifier_extension = true;
    successor
        .signed_by(key, by)
        .map_err(minting("the predecessor's certificate for its successor"))
}

/// A certificate for `host` and `key`.
pub(super) fn leaf(
    host: &str,
    key: &KeyPair,
    validity: Validity,
    by: &Issuer<'_, KeyPair>,
) -> Result<Certificate, AuthorityError> {
    let names = vec![host.to_owned()];
    let mut params = CertificateParams::new(names).map_err(minting("a certificate for that host"))?;
    validity.write(&mut params);
    // No common name, neither the host nor another: where a certificate is for an address, GnuTLS (apt) holds it against the
    // constraints on DNS names.
    params.distinguished_name = DistinguishedName::new();
    let subject = &mut params.distinguished_name;
    subject.push(DnType::OrganizationName, "kato-proxy on behalf of the host");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.signed_by(key, by).map_err(minting("a leaf"))
}

/// "restrictions apply only when the specified name form is present": a form that no host has is excluded as a whole, or there would
/// be no bound on it ([RFC 5280 §4.2.1.10]).
///
/// [RFC 5280 §4.2.1.10]: https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.10
fn constraints(hosts: &Hosts) -> NameConstraints {
    let single =
        |address: IpAddr| CidrSubnet::from_addr_prefix(address, if address.is_ipv4() { 32 } else { 128 });
    let names = hosts.names().map(|name| GeneralSubtree::DnsName(name.to_owned()));
    let addresses = hosts
        .addresses()
        .map(|address| GeneralSubtree::IpAddress(single(address)));
    let permitted_subtrees = names.chain(addresses).collect();
    let mut excluded_subtrees = Vec::new();
    if hosts.names().next().is_none() {
        excluded_subtrees.push(GeneralSubtree::DnsName(String::new()));
    }
    // Both lengths of address are one form: where one of either kind is permitted, the others are not.
    if hosts.addresses().next().is_none() {
        excluded_subtrees.push(GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0)));
        excluded_subtrees.push(GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix([0; 16], 0)));
    }
    NameConstraints {
        permitted_subtrees,
        excluded_subtrees,
    }
}

fn called(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

pub(super) fn minting(what: &'static str) -> impl FnOnce(rcgen::Error) -> AuthorityError {
    move |source| AuthorityError::Mint { what, source }
}
