//! What belongs together: one image, one archive of packages, one host. On a medium of several volumes a group stays in one
//! piece where it can, so that a part that arrives is of use.

/// An image repository and the reference by which something in it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image<'u> {
    /// Host, and port where there is one.
    pub host: &'u str,
    /// The repository.
    pub name: &'u str,
    /// `manifests`, `blobs`, `tags` or `referrers`.
    pub kind: &'u str,
    /// A tag or a digest.
    pub reference: &'u str,
}

/// What `url` asks a registry for, if it is one of `/v2/…`.
pub fn image(url: &str) -> Option<Image<'_>> {
    let (host, path) = split(url)?;
    let path = path.split('?').next().unwrap_or_default();
    let rest = path.split_once("/v2/")?.1;
    let (folder, reference) = rest.rsplit_once('/')?;
    let (name, kind) = folder.rsplit_once('/')?;
    (["manifests", "blobs", "tags", "referrers"].contains(&kind) && !name.is_empty()).then_some(Image {
        host,
        name,
        kind,
        reference,
    })
}

/// The group of `url`: `oci:<host>/<repository>`, `apt:<host>/<archive>`, or the host.
pub fn group(url: &str) -> String {
    if let Some(image) = image(url) {
        return format!("oci:{}/{}", image.host, image.name);
    }
    let Some((host, path)) = split(url) else {
        return url.to_owned();
    };
    for folder in ["/dists/", "/pool/"] {
        if let Some((archive, _)) = path.split_once(folder) {
            return format!("apt:{host}{archive}");
        }
    }
    host.to_owned()
}

/// Host and path of an absolute URL; the path begins with a slash or is empty.
fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.split_once("://")?.1;
    let end = rest.find('/').unwrap_or(rest.len());
    Some(rest.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_archives_and_hosts_are_groups() {
        for (url, expected) in [
            ("https://r.example/v2/a/b/manifests/1.0", "oci:r.example/a/b"),
            ("https://r.example/v2/a/b/blobs/sha256:00", "oci:r.example/a/b"),
            ("https://r.example/v2/a/tags/list?n=1", "oci:r.example/a"),
            (
                "http://deb.example:81/debian/dists/stable/InRelease",
                "apt:deb.example:81/debian",
            ),
            (
                "http://deb.example:81/debian/pool/main/a/a.deb",
                "apt:deb.example:81/debian",
            ),
            ("http://files.example/a/b", "files.example"),
            ("http://files.example", "files.example"),
            ("https://r.example/v2/", "r.example"),
        ] {
            assert_eq!(group(url), expected, "{url}");
        }
    }
}
