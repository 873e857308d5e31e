//! The page: files that are part of the program.

/// Its path, what it is, and its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asset {
    path: &'static str,
    pub(super) content_type: &'static str,
    pub(super) bytes: &'static [u8],
}

const ASSETS: [Asset; 4] = [
    Asset {
        path: "/",
        content_type: "text/html; charset=utf-8",
        bytes: include_bytes!("page/index.html"),
    },
    Asset {
        path: "/page.css",
        content_type: "text/css; charset=utf-8",
        bytes: include_bytes!("page/page.css"),
    },
    Asset {
        path: "/page.js",
        content_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("page/page.js"),
    },
    Asset {
        path: "/favicon.svg",
        content_type: "image/svg+xml",
        bytes: include_bytes!("page/favicon.svg"),
    },
];

/// Nothing but these files, and nothing from elsewhere.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
     style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

pub(super) fn asset(path: &str) -> Option<Asset> {
    ASSETS.into_iter().find(|asset| asset.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> &'static str {
        std::str::from_utf8(asset(path).unwrap().bytes).unwrap()
    }

    #[test]
    fn the_page_is_small_and_needs_nothing_from_elsewhere() {
        let size: usize = ASSETS.iter().map(|asset| asset.bytes.len()).sum();
        assert!(size < 40 << 10, "{size} bytes");
        for asset in ASSETS {
            let text = text(asset.path).replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("://"), "{} names an address", asset.path);
        }
    }

    #[test]
    fn what_is_shown_can_only_be_text() {
        let script = text("/page.js");
        for way in
            ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function("]
        {
            assert!(!script.contains(way), "{way}");
        }
        let page = text("/");
        assert!(!page.contains("style=") && !page.contains(" on"), "the policy forbids it");
        assert!(!page.contains("<style") && page.matches("<script").count() == 1);
    }
}
