use super::*;
use crate::policy::test_support::headers;

fn judge(client: &[(&'static str, &str)], status: u16, fields: &[(&'static str, &str)]) -> Storability {
    judge_with(
        &Method::GET,
        client,
        (status, fields),
        (false, &Overrides::default()),
    )
}

fn judge_with(
    method: &Method,
    client: &[(&'static str, &str)],
    (status, fields): (u16, &[(&'static str, &str)]),
    (known_digest, overrides): (bool, &Overrides),
) -> Storability {
    let client = headers(client);
    let request = Request {
        method,
        headers: &client,
    };
    storability(
        &request,
        (StatusCode::from_u16(status).unwrap(), &headers(fields)),
        known_digest,
        overrides,
    )
}

const CC: &str = "cache-control";
use NoStoreReason as R;
use Storability::{NoStore, Store, StoreDespite};

#[test]
fn rfc9111_s3_what_a_shared_cache_may_store() {
    type Row = (
        &'static [(&'static str, &'static str)],
        u16,
        &'static [(&'static str, &'static str)],
        Storability,
    );
    let table: &[Row] = &[
        (&[], 200, &[], Store),
        (&[], 404, &[], Store),
        (&[], 200, &[(CC, "no-store")], NoStore(R::ResponseNoStore)),
        (
            &[],
            200,
            &[(CC, "max-age=60"), (CC, "NO-STORE")],
            NoStore(R::ResponseNoStore),
        ),
        (&[], 200, &[(CC, "private, max-age=60")], NoStore(R::Private)),
        (&[], 200, &[(CC, "private=\"x-user\", max-age=60")], Store),
        (&[], 200, &[(CC, "private=\"\", max-age=60")], NoStore(R::Private)),
        (&[], 200, &[(CC, "no-cache")], Store),
        (
            &[],
            200,
            &[("vary", "accept"), ("vary", "a, *")],
            NoStore(R::VaryAny),
        ),
        (
            &[],
            206,
            &[("content-range", "bytes 0-1/2"), (CC, "max-age=60")],
            NoStore(R::Partial),
        ),
        (&[], 416, &[(CC, "max-age=60")], NoStore(R::Partial)),
        // RFC 9110 §14.4: no meaning for this status code.
        (&[], 200, &[("content-range", "bytes 0-1/2")], Store),
        (&[], 304, &[(CC, "max-age=60")], NoStore(R::NotModified)),
        (&[], 103, &[(CC, "max-age=60")], NoStore(R::NotFinal)),
        (&[], 302, &[], NoStore(R::NotCacheableByDefault)),
        (&[], 302, &[(CC, "max-age=60")], Store),
        (&[], 302, &[(CC, "public")], Store),
        (&[], 500, &[("expires", "0")], Store),
        (&[], 599, &[(CC, "max-age=60")], Store),
        (
            &[(CC, "no-store")],
            200,
            &[(CC, "max-age=60")],
            NoStore(R::RequestNoStore),
        ),
    ];
    for (client, status, fields, expected) in table {
        assert_eq!(
            judge(client, *status, fields),
            *expected,
            "{client:?} {status} {fields:?}"
        );
    }
}

#[test]
fn rfc9111_s3_5_authorized_requests_need_permission_to_share() {
    let client = [("authorization", "Basic Zm9v")];
    assert_eq!(
        judge(&client, 200, &[(CC, "max-age=60")]),
        NoStore(R::Authorization)
    );
    for allowed in ["public, max-age=60", "s-maxage=60", "must-revalidate, max-age=60"] {
        assert_eq!(judge(&client, 200, &[(CC, allowed)]), Store, "{allowed}");
    }
    assert_eq!(
        judge(&client, 200, &[(CC, "proxy-revalidate, max-age=60")]),
        NoStore(R::Authorization)
    );
}

#[test]
fn rfc9111_s5_2_2_3_must_understand_outweighs_no_store_for_known_status_codes_only() {
    let fields = [(CC, "no-store, must-understand, max-age=60")];
    assert_eq!(judge(&[], 200, &fields), Store);
    assert_eq!(judge(&[], 299, &fields), NoStore(R::NotUnderstood));
    assert_eq!(judge(&[], 299, &[(CC, "max-age=60")]), Store);
}

#[test]
fn rfc9111_s3_only_responses_to_get_are_stored() {
    let unknown = Method::from_bytes(b"FOO").unwrap();
    for method in [Method::HEAD, Method::POST, Method::PUT, Method::OPTIONS, unknown] {
        let judged = judge_with(
            &method,
            &[],
            (200, &[(CC, "max-age=60")]),
            (false, &Overrides::default()),
        );
        assert_eq!(judged, NoStore(R::Method), "{method}");
    }
}

#[test]
fn content_known_in_advance_is_stored_whatever_the_response_says_and_that_is_reported() {
    let immutable = Overrides {
        immutable: true,
        ..Overrides::default()
    };
    let plain = Overrides::default();
    for knowledge in [(true, &plain), (false, &immutable)] {
        for (field, reason) in [("private", R::Private), ("no-store", R::ResponseNoStore)] {
            let judged = judge_with(&Method::GET, &[], (200, &[(CC, field)]), knowledge);
            assert_eq!(judged, StoreDespite(reason), "{field}");
            assert!(judged.may_store());
        }
        let partial = judge_with(&Method::GET, &[], (206, &[(CC, "max-age=60")]), knowledge);
        assert_eq!(partial, NoStore(R::Partial));
        let error = judge_with(&Method::GET, &[], (404, &[(CC, "no-store")]), knowledge);
        assert_eq!(
            error,
            NoStore(R::ResponseNoStore),
            "an error is not the content that was known"
        );
        let refused = judge_with(&Method::GET, &[(CC, "no-store")], (200, &[]), knowledge);
        assert_eq!(refused, NoStore(R::RequestNoStore));
    }
}

#[test]
fn rfc9213_s2_2_a_targeted_field_decides_alone() {
    let overrides = Overrides {
        targeted_fields: vec![http::HeaderName::from_static("cdn-cache-control")],
        ..Overrides::default()
    };
    let fields = [(CC, "no-store"), ("cdn-cache-control", "max-age=60")];
    assert_eq!(
        judge_with(&Method::GET, &[], (200, &fields), (false, &overrides)),
        Store
    );
}
