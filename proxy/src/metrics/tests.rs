use super::*;
use crate::store::Totals;

fn metrics() -> Metrics {
    Metrics::new(&Settings {
        upstreams: vec!["pkg=http://user:secret@pkg.example/".parse().unwrap()],
        ..Settings::default()
    })
}

#[test]
fn what_is_counted_is_on_the_page() {
    let metrics = metrics();
    metrics.answered(Outcome::Hit, Duration::from_millis(3));
    metrics.upstream_bytes("pkg", 7);
    metrics.tunnel("pkg").passed(13);
    metrics.upstream_failure("pkg", ErrorKind::Timeout);
    metrics
        .counted("http://pkg.example/", "pkg")
        .served(Outcome::Miss, 11);
    metrics.filled(Duration::from_secs(2));
    let (open, _under_way) = (metrics.connected(), metrics.in_flight());
    drop(open);
    let page = metrics.render(&Gauges {
        totals: Totals {
            responses: 5,
            ..Totals::default()
        },
        ..Gauges::default()
    });
    for line in [
        "kato_proxy_requests_total{outcome=\"hit\"} 1",
        "kato_proxy_wan_bytes_total{upstream=\"pkg\"} 7",
        "kato_proxy_tunnel_bytes_total 13",
        "kato_proxy_upstream_tunnel_bytes_total{upstream=\"pkg\"} 13",
        "kato_proxy_upstream_failures_total{upstream=\"pkg\",kind=\"timeout\"} 1",
        "kato_proxy_upstream_answers_total{upstream=\"pkg\",outcome=\"miss\"} 1",
        "kato_proxy_upstream_answer_bytes_total{upstream=\"pkg\",outcome=\"miss\"} 11",
        "kato_proxy_first_byte_seconds_bucket{outcome=\"hit\",le=\"0.001\"} 0",
        "kato_proxy_first_byte_seconds_bucket{outcome=\"hit\",le=\"0.005\"} 1",
        "kato_proxy_first_byte_seconds_bucket{outcome=\"hit\",le=\"+Inf\"} 1",
        "kato_proxy_fill_seconds_bucket{le=\"1\"} 0",
        "kato_proxy_fill_seconds_bucket{le=\"5\"} 1",
        "kato_proxy_fill_seconds_sum 2",
        "kato_proxy_connections_total 1",
        "kato_proxy_open_connections 0",
        "kato_proxy_in_flight_requests 1",
        "kato_proxy_stored_responses 5",
    ] {
        assert!(
            page.lines().any(|known| known == line),
            "{line} is not in\n{page}"
        );
    }
    assert!(!page.contains("secret"));
}
