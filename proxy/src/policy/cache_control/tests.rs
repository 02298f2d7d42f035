use proptest::prelude::*;

use super::*;
use crate::policy::test_support::headers;

fn response(lines: &[&str]) -> ResponseDirectives {
    ResponseDirectives::of(&headers(
        &lines
            .iter()
            .map(|line| ("cache-control", *line))
            .collect::<Vec<_>>(),
    ))
}

fn request(line: &str) -> RequestDirectives {
    RequestDirectives::of(&headers(&[("cache-control", line)]))
}

#[test]
fn rfc9111_s5_2_directives_are_case_insensitive_over_all_lines_and_both_argument_forms() {
    let directives = response(&["Max-Age=60, PUBLIC", "s-maxage=\"120\" ,, must-revalidate"]);
    assert_eq!(directives.max_age, Some(60));
    assert_eq!(directives.s_maxage, Some(120));
    assert!(directives.public && directives.must_revalidate && !directives.no_store);
}

#[test]
fn rfc9111_s5_2_a_quoted_string_hides_its_commas_and_directives() {
    let directives = response(&[r#"extension="no-store, max-age=9, a\"b", max-age=60"#]);
    assert!(!directives.no_store);
    assert_eq!(directives.max_age, Some(60));
    assert_eq!(directives.unknown, ["extension"]);
}

#[test]
fn rfc9111_s5_2_a_quote_that_never_closes_hides_nothing() {
    assert!(response(&[r#"extension="oops, no-store"#]).no_store);
}

#[test]
fn rfc9111_s5_2_2_1_max_age_takes_digits_only_and_anything_else_is_stale() {
    for (argument, seconds) in [
        ("0", 0),
        ("007", 7),
        ("2147483648", 1 << 31),
        ("2147483649", 1 << 31),
        ("99999999999999999999", 1 << 31),
        ("-1", 0),
        ("1.5", 0),
        ("60s", 0),
        ("'60'", 0),
        ("", 0),
        (" 60", 0),
    ] {
        assert_eq!(
            response(&[&format!("max-age={argument}, public")]).max_age,
            Some(seconds),
            "{argument:?}"
        );
    }
    assert_eq!(response(&["max-age"]).max_age, Some(0));
}

#[test]
fn rfc9111_s4_2_1_of_repeated_directives_the_first_counts() {
    assert_eq!(response(&["max-age=60", "max-age=600"]).max_age, Some(60));
    assert_eq!(response(&["max-age=nonsense, max-age=600"]).max_age, Some(0));
}

#[test]
fn rfc9111_s5_2_2_4_qualified_no_cache_and_private_list_fields() {
    let set_cookie = HeaderName::from_static("set-cookie");
    let foo = HeaderName::from_static("x-foo");
    for (line, scope) in [
        (
            r#"no-cache="Set-Cookie, X-Foo""#,
            FieldScope::Fields(vec![set_cookie.clone(), foo.clone()]),
        ),
        (
            r#"no-cache="set-cookie", no-cache=x-foo"#,
            FieldScope::Fields(vec![set_cookie.clone(), foo]),
        ),
        (r#"no-cache="set-cookie", no-cache"#, FieldScope::Whole),
        (r#"no-cache, no-cache="set-cookie""#, FieldScope::Whole),
        (r#"no-cache="""#, FieldScope::Whole),
        (r#"no-cache="not a name""#, FieldScope::Whole),
        ("no-cache", FieldScope::Whole),
        ("max-age=1", FieldScope::Absent),
    ] {
        assert_eq!(response(&[line]).no_cache, scope, "{line}");
        assert_eq!(
            response(&[&line.replace("no-cache", "private")]).private,
            scope,
            "{line} as private"
        );
    }
}

#[test]
fn rfc9111_s5_2_1_request_directives() {
    let directives =
        request("no-cache, max-age=5, min-fresh=6, max-stale=7, only-if-cached, stale-if-error=8");
    assert!(directives.no_cache && directives.only_if_cached && !directives.no_store);
    assert_eq!(
        (
            directives.max_age,
            directives.min_fresh,
            directives.max_stale,
            directives.stale_if_error
        ),
        (Some(5), Some(6), Some(MaxStale::Seconds(7)), Some(8))
    );
    assert_eq!(request("max-stale").max_stale, Some(MaxStale::Any));
    assert_eq!(request("max-stale=soon").max_stale, None);
    assert_eq!(request("max-age=soon").max_age, Some(0));
}

#[test]
fn rfc9111_s5_4_pragma_counts_only_without_cache_control() {
    assert!(RequestDirectives::of(&headers(&[("pragma", "x, No-Cache")])).no_cache);
    assert!(
        !RequestDirectives::of(&headers(&[
            ("pragma", "no-cache"),
            ("cache-control", "max-age=5")
        ]))
        .no_cache
    );
}

proptest! {
    #[test]
    fn rfc9111_s5_2_parsing_takes_any_bytes(line in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(value) = http::HeaderValue::from_bytes(&line) {
            let mut map = HeaderMap::new();
            map.insert(header::CACHE_CONTROL, value);
            prop_assert!(ResponseDirectives::of(&map).max_age.is_none_or(|age| age <= MAX_DELTA_SECONDS));
            prop_assert!(RequestDirectives::of(&map).max_age.is_none_or(|age| age <= MAX_DELTA_SECONDS));
        }
    }

    #[test]
    fn rfc9111_s5_2_a_no_store_between_tokens_is_always_seen(
        before in "[a-z]{1,8}(=[a-z0-9]{1,8}|=\"[a-z, ]{0,8}\")?",
        after in "[a-z]{1,8}(=[a-z0-9]{1,8}|=\"[a-z, ]{0,8}\")?",
    ) {
        let line = format!("{before} ,\tNo-Store,{after}");
        prop_assert!(response(&[&line]).no_store, "{}", line);
    }

    #[test]
    fn rfc9111_s5_2_list_members_survive_a_round_trip(members in proptest::collection::vec("[a-z=0-9]{1,6}", 0..6)) {
        let line = members.join(" , ");
        let again: Vec<_> = split_list(line.as_bytes()).map(|member| String::from_utf8_lossy(member).into_owned()).collect();
        prop_assert_eq!(again, members);
    }
}
