package peer

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"strings"
)

// pageFiles is the page: one document and the files it needs. page/uPlot.js and page/uPlot.css are uPlot 1.6.32 as
// published on npm, under the licence beside them.
//
//go:embed page/index.html page/page.css page/page.js page/model.js page/uPlot.js page/uPlot.css
var pageFiles embed.FS

// pagePolicy is the page's content security policy. The page loads only what this handler serves, runs no inline scripts,
// and cannot be framed.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// page serves the files of the page.
type page struct{ files map[string]pageFile }

type pageFile struct {
	kind string // Content-Type
	etag string
	body []byte
}

func newPage() page {
	p := page{files: make(map[string]pageFile)}
	entries, _ := pageFiles.ReadDir("page") // the directory is embedded, so it exists
	for _, e := range entries {
		body, _ := pageFiles.ReadFile("page/" + e.Name())
		sum := sha256.Sum256(body)
		kind := "text/html; charset=utf-8"
		switch {
		case strings.HasSuffix(e.Name(), ".js"):
			kind = "text/javascript; charset=utf-8"
		case strings.HasSuffix(e.Name(), ".css"):
			kind = "text/css; charset=utf-8"
		}
		p.files[e.Name()] = pageFile{kind: kind, etag: `"` + hex.EncodeToString(sum[:12]) + `"`, body: body}
	}
	return p
}

// serveIndex serves the page itself.
func (p page) serveIndex(w http.ResponseWriter, r *http.Request) {
	if redirectToSlash(w, r) {
		return
	}
	p.serve(w, r, "index.html")
}

// serve serves one file. It returns false if it has none with that name.
func (p page) serve(w http.ResponseWriter, r *http.Request, name string) bool {
	f, ok := p.files[name]
	if !ok {
		return false
	}
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache") // revalidate each time; the ETag makes that cheap
	h.Set("ETag", f.etag)
	if r.Header.Get("If-None-Match") == f.etag {
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	if r.Method != http.MethodHead {
		_, _ = w.Write(f.body) // the client is gone: nobody is left to tell
	}
	return true
}
