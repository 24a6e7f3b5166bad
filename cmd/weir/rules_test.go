package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/tier"
)

// originTime is how long the origin takes to answer.
const originTime = 2 * revalidate

const rigContract = "freshness: {ttl: 100s, stale_while_revalidate: 50s, stale_if_error: 1h, negative_ttl: 20s, error_ttl: 2s, near_ttl: 1s, jitter: -1, refresh_ahead: -1}"

// A rule is a row of HTTP.md: the settings of the namespace, and the test.
type rule struct {
	settings string
	test     func(t *testing.T, g *rig)
}

const lifetimes = "origin: {url: 'http://origin/p/{key}', cache_control: lifetimes}"

// unkept returns the test of an origin's directive that keeps its answers out of the cache.
func unkept(control string) rule {
	return rule{"client_max_age: 10s", func(t *testing.T, g *rig) {
		g.want("k", 200, "v", 1)
		time.Sleep(30 * time.Second)
		g.says(200, "secret", "Cache-Control: "+control)
		resp := g.want("k", 200, "secret", 2, "Cache-Control: no-cache")
		g.header(resp, "Cache-Control", "no-store")
		g.header(resp, "Cache-Status", `"n"; fwd=request`)
		g.header(g.want("k", 200, "secret", 3), "Cache-Status", `"n"; fwd=miss`)
		g.want("k", 504, "only-if-cached", 3, "Cache-Control: only-if-cached")
		g.says(404, "none", "Cache-Control: "+control)
		g.header(g.want("k", 404, "none", 4), "Cache-Control", "no-store")
		g.want("k", 404, "none", 5)
	}}
}

// shortened returns the test of headers that give a value, which was age seconds old, 10 more seconds.
func shortened(age int, headers ...string) rule {
	return rule{lifetimes + "\n    client_max_age: 1m", func(t *testing.T, g *rig) {
		g.says(200, "v", headers...)
		left := fmt.Sprint("max-age=", age+9) // includes Age, and is rounded down
		g.header(g.want("k", 200, "v", 1), "Cache-Control", left)
		time.Sleep(8 * time.Second)
		g.header(g.want("k", 200, "v", 1), "Cache-Control", left)
		time.Sleep(3 * time.Second)
		g.header(g.want("k", 200, "v", 2), "Cache-Control", "no-cache") // stale, while a new load runs
		time.Sleep(time.Second + originTime)
		g.header(g.want("k", 200, "v", 2), "Cache-Control", left)
	}}
}

// rules has tests for each row of HTTP.md, keyed by the text of its first cell.
var rules = map[string][]rule{
	"`Cache-Control: no-cache`": {{"", func(t *testing.T, g *rig) {
		g.want("k", 200, "v", 1)
		g.says(200, "new")
		g.want("k", 200, "v", 1)
		g.header(g.want("k", 200, "new", 2, "Cache-Control: no-cache"), "Cache-Status", `"n"; fwd=request; stored; ttl=99`)
		g.says(500, "")
		g.want("k", 502, "", 3, "Cache-Control: no-cache")
		g.want("k", 200, "new", 3)
	}}, unkept("no-cache"), unkept(`no-cache="set-cookie"`)},
	"`Cache-Control: max-age=N`": {{"", func(t *testing.T, g *rig) {
		g.want("k", 200, "v", 1)
		time.Sleep(2900 * time.Millisecond)
		g.want("k", 200, "v", 1, "Cache-Control: max-age=3")
		g.says(200, "new")
		g.want("k", 200, "new", 2, "Cache-Control: max-age=2")
		g.want("k", 200, "new", 3, "Cache-Control: max-age=0")
		time.Sleep(500 * time.Millisecond)
		g.want("k", 200, "new", 3, "Cache-Control: max-age=1")
		g.want("k", 200, "new", 4, "Cache-Control: max-age=0")
	}}, {"", func(t *testing.T, g *rig) { // the copy was already old when the origin sent it
		g.says(200, "v", "Age: 30")
		g.want("k", 200, "v", 1)
		g.want("k", 200, "v", 1, "Cache-Control: max-age=31")
		g.want("k", 200, "v", 2, "Cache-Control: max-age=30")
	}}},
	"`Cache-Control: min-fresh=N`": {{"", func(t *testing.T, g *rig) {
		g.want("k", 200, "v", 1)
		time.Sleep(9 * time.Second)
		g.want("k", 200, "v", 1, "Cache-Control: min-fresh=90")
		g.want("k", 200, "v", 2, "Cache-Control: min-fresh=91")
		g.want("k", 200, "v", 3, "Cache-Control: min-fresh=1000")
		g.want("k", 200, "v", 3, "Cache-Control: min-fresh=0")
	}}},
	"`Cache-Control: max-stale`": {{"", func(t *testing.T, g *rig) {
		g.want("k", 200, "v", 1)
		time.Sleep(200 * time.Second)
		g.want("k", 200, "v", 2, "Cache-Control: max-stale=1000")
	}}},
	"`Cache-Control: no-store`": {{"", func(t *testing.T, g *rig) {
		g.want("k", 200, "v", 1, "Cache-Control: no-store")
		g.want("k", 200, "v", 1, "Cache-Control: no-store")
	}}, unkept("no-store"), unkept("max-age=x, No-Store"), unkept(`x="a, b", no-store, public`), {"origin: {url: 'http://origin/p/{key}', cache_control: ignore}", func(t *testing.T, g *rig) {
		g.says(200, "v", "Cache-Control: no-store, private, no-cache, max-age=0", "Vary: *")
		g.want("k", 200, "v", 1)
		g.want("k", 200, "v", 1)
	}}},
	"`Cache-Control: no-transform`": {{"client_max_age: 10s", func(t *testing.T, g *rig) {
		g.says(200, "v", "Cache-Control: no-transform")
		g.header(g.want("k", 200, "v", 1, "Cache-Control: no-transform"), "Cache-Control", "max-age=10, no-transform")
	}}},
	"`Cache-Control: only-if-cached`": {{"", func(t *testing.T, g *rig) {
		g.header(g.want("k", 504, "only-if-cached", 0, "Cache-Control: only-if-cached"), "Cache-Status", `"n"; detail=only-if-cached`)
		g.want("k", 200, "v", 1)
		time.Sleep(5 * time.Second)
		g.want("k", 200, "v", 1, "Cache-Control: only-if-cached")
		g.want("k", 504, "", 1, "Cache-Control: only-if-cached, max-age=1")
	}}},
	"`Pragma: no-cache`": {{"", func(t *testing.T, g *rig) {
		g.want("k", 200, "v", 1)
		g.want("k", 200, "v", 2, "Pragma: no-cache")
		g.want("k", 200, "v", 2, "Pragma: no-cache", "Cache-Control: max-age=9")
	}}},
	"several directives": {{"", func(t *testing.T, g *rig) {
		g.want("k", 200, "v", 1)
		time.Sleep(5 * time.Second)
		g.want("k", 200, "v", 1, `Cache-Control: max-age=x, max-age=-1, max-age=, ,=, foo="max-age=0, no-cache", MAX-AGE="9", max-age=99999999999999999999`)
		g.want("k", 200, "v", 2, "Cache-Control: max-age=9, max-age=3, min-fresh=1")
		g.want("k", 200, "v", 3, "Cache-Control: max-age=x, no-cache")
	}}, {"client_cache_control: ignore", func(t *testing.T, g *rig) {
		g.want("k", 200, "v", 1)
		g.want("k", 200, "v", 1, "Cache-Control: no-cache")
		g.want("other", 200, "v", 2, "Cache-Control: only-if-cached")
	}}},
	"`If-None-Match`, `If-Modified-Since`": {{"", func(t *testing.T, g *rig) {
		g.says(200, "v", `ETag: "a"`, "Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT")
		resp := g.want("k", 200, "v", 1)
		g.want("k", 304, "", 1, "If-None-Match: "+resp.Header.Get("ETag"))
		g.want("k", 200, "v", 1, `If-None-Match: "b"`)
		g.want("k", 304, "", 1, "If-Modified-Since: "+resp.Header.Get("Last-Modified"))
		g.want("k", 200, "v", 1, "If-Modified-Since: Fri, 31 Dec 1999 00:00:00 GMT")
	}}},
	"`Range`": {{"", func(t *testing.T, g *rig) {
		g.says(200, "0123456789")
		g.want("k", 206, "123", 1, "Range: bytes=1-3")
		g.want("k", 416, "", 1, "Range: bytes=20-")
	}}},
	"a query": {{"", func(t *testing.T, g *rig) {
		g.want("k?a=1", 400, "takes no query", 0)
		g.want("k?", 200, "v", 1)
	}}, {"query: key", func(t *testing.T, g *rig) {
		g.want("k%20y?a=1&b=%20", 200, "v", 1)
		if got := g.asked[0].URL.String(); got != "http://origin/p/k%20y?a=1&b=%20" {
			t.Error(got)
		}
		g.want("k%20y?a=1&b=%20", 200, "v", 1)
		g.want("k%20y?b=%20&a=1", 200, "v", 2)
		g.want("k%20y", 200, "v", 3)
		g.want("k%3Fa=1", 400, "question mark", 3)
		g.want("k?a=%22<", 400, "percent-encode", 3)
	}}},
	"a key that could leave its place in the origin's path": {{"", func(t *testing.T, g *rig) {
		for _, path := range []string{"..", ".", "..%2Fadmin", "a%2F..%2F..%2Fadmin", "%2e%2e", "%2E%2e/admin", "a/../../admin", "..%5Cadmin", "a%5Cb", "..%3Bx=1%2Fadmin", "%252e%252e%252Fadmin",
			"%25252e%25252e", "..%252Fadmin", "a%00", "a%0D%0AHost:%20x", "%257f", "a/./b"} {
			g.want(path, 400, "the key could leave its place in the origin's address", 0)
		}
		for i, path := range []string{"...", "a..b", "..a", "a%2Fb", "100%25", "%25zz", "a.%3Bb", "%E2%80%A6"} {
			g.want(path, 200, "v", i+1)
		}
	}}, {"origin: {url: 'http://origin/p?q={key}'}", func(t *testing.T, g *rig) { // in the query the key cannot leave its place
		g.want("..%2Fadmin", 200, "v", 1)
		if got := g.asked[0].URL.String(); got != "http://origin/p?q=..%2Fadmin" {
			t.Error(got)
		}
	}}, {"origin: {url: 'http://origin/.{key}/x'}", func(t *testing.T, g *rig) {
		g.want("%2E", 400, "segment", 0)
		g.want("a", 200, "v", 1)
	}}},
	"`Cache-Control: private`": {unkept("private"), unkept(`Private="x-user, y"`)},
	"`Cache-Control: must-revalidate`, `proxy-revalidate`": {{"client_max_age: 10s", func(t *testing.T, g *rig) {
		for i, name := range []string{"must-revalidate", "proxy-revalidate"} {
			g.says(200, "v", "Cache-Control: "+name)
			g.header(g.want(name, 200, "v", 2*i+1), "Cache-Control", "max-age=10, "+name)
			time.Sleep(101 * time.Second)
			g.says(500, "")
			g.want(name, 502, "", 2*i+2)
		}
	}}},
	"`Cache-Control: max-age=N`, `s-maxage=N`": {
		shortened(0, "Cache-Control: max-age=10"), shortened(0, "Cache-Control: max-age=50, s-maxage=10"), shortened(20, "Cache-Control: max-age=30", "Age: 20"),
		{"", func(t *testing.T, g *rig) {
			g.says(200, "v", "Cache-Control: max-age=0, s-maxage=1")
			g.want("k", 200, "v", 1)
			time.Sleep(99 * time.Second)
			g.want("k", 200, "v", 1)
		}}, {lifetimes, func(t *testing.T, g *rig) {
			g.says(200, "v", "Cache-Control: max-age=1000")
			g.want("k", 200, "v", 1)
			time.Sleep(160 * time.Second) // past the contract's TTL and stale window
			g.want("k", 200, "v", 2)
			for i, control := range []string{"max-age=0", "max-age=x", "s-maxage=0, max-age=5"} {
				g.says(200, "v", "Cache-Control: "+control)
				g.want("not", 200, "v", 2*i+3)
				g.want("not", 200, "v", 2*i+4)
			}
		}}},
	"`Expires`": {
		shortened(0, "Date: Sat, 01 Jan 2000 00:00:00 GMT", "Expires: Sat, 01 Jan 2000 00:00:10 GMT"),
		shortened(0, "Cache-Control: max-age=10", "Expires: 0"),
		{lifetimes, func(t *testing.T, g *rig) {
			g.says(200, "v", "Expires: 0")
			g.want("k", 200, "v", 1)
			g.want("k", 200, "v", 2)
		}}},
	"`Cache-Control: stale-while-revalidate=N`, `stale-if-error=N`": {{lifetimes, func(t *testing.T, g *rig) {
		g.says(200, "v", "Cache-Control: stale-while-revalidate=5, stale-if-error=30")
		g.want("k", 200, "v", 1)
		time.Sleep(110 * time.Second)
		g.says(500, "")
		g.want("k", 200, "v", 2) // the read waited for the load, which failed
		time.Sleep(25 * time.Second)
		g.want("k", 502, "", 3)
	}}},
	"`Cache-Control: public`, `immutable`, `must-understand`": {{"", func(t *testing.T, g *rig) {
		g.says(200, "v", "Cache-Control: public, immutable, must-understand")
		g.header(g.want("k", 200, "v", 1), "Cache-Control", "no-cache")
		g.want("k", 200, "v", 2, "Cache-Control: no-cache")
	}}},
	"`Age`": {{"client_max_age: 10s", func(t *testing.T, g *rig) {
		g.says(200, "v", "Age: 30")
		g.header(g.want("k", 200, "v", 1), "Age", "30")
		time.Sleep(5 * time.Second)
		resp := g.want("k", 200, "v", 1)
		g.header(resp, "Age", "35")
		g.header(resp, "Cache-Control", "max-age=45") // of which 10 are left
		g.says(200, "v", "Age: soon")
		g.header(g.want("k", 200, "v", 2, "Cache-Control: no-cache"), "Age", "0")
	}}},
	"`Vary`": {{"", func(t *testing.T, g *rig) {
		g.says(200, "v", "Vary: Accept-Language, Cookie")
		g.header(g.want("k", 200, "v", 1, "Accept-Language: de"), "Vary", "Accept-Language, Cookie")
		g.want("k", 200, "v", 1, "Accept-Language: fr")
		if g.asked[0].Header.Get("Accept-Language") != "" {
			t.Error(g.asked[0].Header)
		}
		g.says(200, "v", "Vary: *")
		g.want("any", 200, "v", 2)
		g.want("any", 200, "v", 3)
	}}},
	"`ETag`, `Last-Modified`": {{"", func(t *testing.T, g *rig) {
		modified := "Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT"
		g.says(200, "v", `ETag: "a"`, modified, "X-Other: 1")
		resp := g.want("k", 200, "v", 1)
		g.header(resp, "ETag", `"a"`)
		g.header(resp, "Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
		g.says(304, "", "X-Other: 2", "X-New: 3", "Age: 7", "Content-Type: text/none")
		resp = g.want("k", 200, "v", 2, "Cache-Control: no-cache")
		g.header(resp, "X-Other", "2")
		g.header(resp, "X-New", "3")
		g.header(resp, "Age", "7")
		g.header(resp, "Content-Type", "")
		if h := g.asked[1].Header; h.Get("If-None-Match") != `"a"` || h.Get("If-Modified-Since") != "" {
			t.Error(h)
		}
		g.says(200, "w", modified)
		g.want("dated", 200, "w", 3)
		g.says(304, "")
		g.want("dated", 200, "w", 4, "Cache-Control: no-cache")
		if h := g.asked[3].Header; h.Get("If-Modified-Since") == "" || h.Get("If-None-Match") != "" {
			t.Error(h)
		}
		g.says(200, "x")
		if resp = g.want("bare", 200, "x", 5); resp.Header.Get("ETag") == "" {
			t.Error("no ETag")
		}
		g.want("bare", 200, "x", 6, "Cache-Control: no-cache")
		if h := g.asked[5].Header; len(h) != 0 {
			t.Error(h)
		}
		g.says(304, "", "Cache-Control: no-store")
		g.want("dated", 200, "w", 7, "Cache-Control: no-cache")
		time.Sleep(2 * time.Second) // near_ttl
		g.want("dated", 502, "", 8) // the copy is gone, and the origin was not asked about it
	}}},
	"`Content-Type`": {{"", func(t *testing.T, g *rig) {
		g.says(200, "<html><script>", "Content-Type: text/x; charset=latin1")
		g.header(g.want("k", 200, "<html>", 1), "Content-Type", "text/x; charset=latin1")
		g.says(200, "<html><script>")
		if resp := g.want("none", 200, "<html>", 2); len(resp.Header.Values("Content-Type")) != 0 {
			t.Error(resp.Header)
		}
	}}},
	"`Content-Encoding`": {{"origin: {url: 'http://origin/p/{key}', headers: {Accept-Encoding: br}}", func(t *testing.T, g *rig) {
		g.says(200, "bytes", "Content-Encoding: br", `ETag: "a"`)
		resp := g.want("k", 200, "bytes", 1)
		g.header(resp, "Content-Encoding", "br")
		g.header(resp, "ETag", `"a"`)
		says := g.answer
		g.answer = func(r *http.Request) *http.Response { // the way http.Transport reports that it has decoded gzip
			resp := says(r)
			resp.Header.Del("Content-Encoding")
			resp.Uncompressed = true
			return resp
		}
		resp = g.want("zipped", 200, "bytes", 2)
		g.header(resp, "ETag", `W/"a"`)
		g.want("zipped", 304, "", 2, `If-None-Match: W/"a"`)
		g.says(304, "")
		g.want("zipped", 200, "bytes", 3, "Cache-Control: no-cache")
		if h := g.asked[2].Header; h.Get("If-None-Match") != `"a"` {
			t.Error(h)
		}
	}}},
	"`Content-Language`, other fields": {{"", func(t *testing.T, g *rig) {
		g.says(200, "v", "Content-Language: de", "Link: <a>", "Link: <b>", "X-Own: 1", "Cache-Status: cdn; hit")
		g.want("k", 200, "v", 1)
		resp := g.want("k", 200, "v", 1)
		g.header(resp, "Content-Language", "de")
		g.header(resp, "Link", "<a> | <b>")
		g.header(resp, "X-Own", "1")
		g.header(resp, "Cache-Status", `cdn; hit | "n"; hit; ttl=99; detail=near`)
	}}},
	"`Connection`, `Date`, `Set-Cookie`, ...": {{"", func(t *testing.T, g *rig) {
		g.says(200, "v", "Connection: X-Hop, close", "X-Hop: 1", "Keep-Alive: 5", "Set-Cookie: a=b", "Date: Sat, 01 Jan 2000 00:00:00 GMT", "Strict-Transport-Security: max-age=1", "Content-Length: 1")
		var names []string
		for name, values := range g.want("k", 200, "v", 1).Header {
			if len(values) > 0 {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != "Accept-Ranges Age Cache-Control Cache-Status Content-Length Etag X-Content-Type-Options" {
			t.Error(got)
		}
	}}},
	"200, 203, 204": {{"", func(t *testing.T, g *rig) {
		for i, status := range []int{200, 203, 204} {
			g.says(status, "", "X-Own: 1")
			g.want(fmt.Sprint(status), status, "", i+1)
			g.header(g.want(fmt.Sprint(status), status, "", i+1), "X-Own", "1")
		}
	}}},
	"206, other 2xx": {{"", func(t *testing.T, g *rig) {
		g.says(206, "part", "Content-Range: bytes 0-3/10")
		g.header(g.want("part", 206, "part", 1), "Content-Range", "bytes 0-3/10")
		g.want("part", 206, "part", 2)
		g.says(202, "later", "Retry-After: 9")
		g.want("k", 202, "later", 3)
		g.says(200, "v")
		g.want("k", 200, "v", 4)
	}}},
	"redirects": {{"origin: {url: 'https://origin/p/{key}', headers: {X-Api-Key: secret, Authorization: Bearer x}, redirects: ['https://files.example.com']}", func(t *testing.T, g *rig) {
		moved := func(to string) {
			g.answer = func(r *http.Request) *http.Response {
				status, header := 200, make(http.Header)
				if strings.HasPrefix(r.URL.Path, "/p/") {
					status = 302
					header.Set("Location", to)
				}
				return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader("at " + r.URL.String()))}
			}
		}
		for i, to := range []string{"/q", "https://origin/q", "https://ORIGIN:443/q"} {
			moved(to)
			g.want(fmt.Sprint("k", i), 200, "at https://", 2*i+2)
			if h := g.asked[2*i+1].Header; h.Get("X-Api-Key") != "secret" {
				t.Error(to, h)
			}
		}
		moved("https://files.example.com/q")
		g.want("allowed", 200, "at https://files.example.com/q", 8)
		if h := g.asked[7].Header; len(h) != 0 {
			t.Error(h)
		}
		for i, to := range []string{"http://origin/q", "https://origin:8443/q", "https://evil.example.com/q", "http://files.example.com/q", "https://origin.evil.example.com/"} {
			moved(to)
			g.want(fmt.Sprint("other", i), 502, "could not be read", 9+i)
		}
		moved("/p/again")
		g.want("round", 502, "could not be read", 13+4)
		g.says(300, "which?")
		g.want("choices", 502, "could not be read", 13+5)
	}}},
	"404": {{"client_max_age: 100s", func(t *testing.T, g *rig) {
		g.says(404, "")
		g.header(g.want("k", 404, "no such key", 1), "Cache-Control", "max-age=19")
		time.Sleep(5 * time.Second)
		resp := g.want("k", 404, "no such key", 1)
		g.header(resp, "Age", "5")
		g.header(resp, "Cache-Control", "max-age=19") // of which 14 are left
		g.header(resp, "Cache-Status", `"n"; hit; ttl=14; detail=owned`)
		time.Sleep(16 * time.Second)
		g.want("k", 404, "no such key", 2)
	}}},
	"410": {{"client_max_age: 100s", func(t *testing.T, g *rig) {
		g.want("k", 200, "v", 1)
		g.says(410, "gone for good")
		g.header(g.want("k", 410, "for good", 2, "Cache-Control: no-cache"), "Cache-Control", "max-age=19")
		time.Sleep(19 * time.Second)
		g.want("k", 410, "for good", 2)
		time.Sleep(2 * time.Second)
		g.want("k", 410, "for good", 3)
	}}},
	"429": {{"", func(t *testing.T, g *rig) {
		g.want("had", 200, "v", 1)
		g.says(429, "calm down", "Retry-After: 7")
		for i := range 60 {
			resp := g.want(fmt.Sprint("k", i), 429, "accepts no more", 2+i)
			g.header(resp, "Retry-After", "7")
			g.header(resp, "Cache-Status", `"n"; fwd=miss; fwd-status=429`)
			g.header(resp, "Cache-Control", "no-store")
		}
		time.Sleep(200 * time.Second)
		g.want("had", 200, "v", 62)
		g.says(200, "again")
		g.want("good", 200, "again", 63)
	}}},
	"other 4xx": {{"", func(t *testing.T, g *rig) {
		g.want("had", 200, "v", 1)
		asked := 1
		for _, status := range []int{400, 401, 403, 405, 409, 414, 422, 451} {
			g.says(status, "because", "WWW-Authenticate: Basic", "Content-Type: application/problem+json", "Retry-After: 3")
			for i := range 60 {
				asked++
				resp := g.want(fmt.Sprint(status, "-", i), status, "because", asked)
				g.header(resp, "Content-Type", "application/problem+json")
				g.header(resp, "WWW-Authenticate", "Basic")
				g.header(resp, "Retry-After", "3")
			}
			g.want(fmt.Sprint(status, "-59"), status, "because", asked)
		}
		time.Sleep(110 * time.Second)
		g.want("had", 200, "v", asked+1) // stale, while the load runs
		time.Sleep(time.Second)
		g.want("had", 451, "because", asked+1) // and then the value is gone
		time.Sleep(3 * time.Second)
		g.says(200, "good")
		g.want("had", 200, "good", asked+2)
	}}},
	"503, 504, other 5xx": {{"", func(t *testing.T, g *rig) {
		g.want("had", 200, "v", 1)
		time.Sleep(200 * time.Second)
		g.says(503, "details", "Retry-After: 9")
		g.want("had", 200, "v", 2)
		resp := g.want("k", 503, "not available", 3)
		g.header(resp, "Retry-After", "9")
		g.header(resp, "Cache-Status", `"n"; fwd=miss; fwd-status=503`)
		g.says(503, "", "Date: Sat, 01 Jan 2000 00:00:00 GMT", "Retry-After: Sat, 01 Jan 2000 00:00:11 GMT")
		g.header(g.want("dated", 503, "", 4), "Retry-After", "11")
		g.says(504, "details")
		g.want("late", 504, "in time", 5)
		g.says(500, "details")
		g.want("broken", 502, "could not be read", 6)
		for i := range 40 { // until the breaker opens
			g.get(fmt.Sprint("more", i))
		}
		asked := len(g.asked)
		if resp := g.get("shut"); resp.StatusCode != 503 || len(g.asked) != asked {
			t.Errorf("%d, asked %d times after %d", resp.StatusCode, len(g.asked), asked)
		}
	}}},
	"`Cache-Control`": {{"client_max_age: 10s", func(t *testing.T, g *rig) {
		g.header(g.want("k", 200, "v", 1), "Cache-Control", "max-age=10")
		time.Sleep(95 * time.Second)
		g.header(g.want("k", 200, "v", 1), "Cache-Control", "max-age=99") // of which 4 are left
		time.Sleep(10 * time.Second)
		g.header(g.want("k", 200, "v", 2), "Cache-Control", "no-cache") // stale
		g.says(500, "")
		g.header(g.want("none", 502, "", 3), "Cache-Control", "no-store")
	}}, {"", func(t *testing.T, g *rig) {
		g.header(g.want("k", 200, "v", 1), "Cache-Control", "no-cache")
	}}},
	"`Cache-Status`": {{"", func(t *testing.T, g *rig) {
		g.header(g.want("k", 200, "v", 1), "Cache-Status", `"n"; fwd=miss; stored; ttl=99`)
		g.header(g.want("k", 200, "v", 1), "Cache-Status", `"n"; hit; ttl=99; detail=near`)
		time.Sleep(110 * time.Second)
		g.header(g.want("k", 200, "v", 2), "Cache-Status", `"n"; hit; ttl=-11; detail=stale-owned`)
	}}},
}

// TestHTTPRules checks that each row of HTTP.md has a test, and that each test has a row, and runs the tests.
func TestHTTPRules(t *testing.T) {
	text, err := os.ReadFile("HTTP.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		cell, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if !ok || !strings.HasPrefix(line, "| ") || cell == "request" || cell == "answer" || cell == "status" || cell == "field" {
			continue
		}
		rows[cell] = true
		if len(rules[cell]) == 0 {
			t.Errorf("the row %q has no test", cell)
		}
	}
	for cell, tests := range rules {
		if !rows[cell] {
			t.Errorf("there is no row %q", cell)
		}
		for i, r := range tests {
			t.Run(fmt.Sprintf("%s %d", cell, i+1), func(t *testing.T) { onRig(t, r.settings, r.test) })
		}
	}
}

// TestOriginErrorAcrossMembers checks that the origin's answer reaches a caller on a member other than the one that
// loaded.
func TestOriginErrorAcrossMembers(t *testing.T) {
	for _, e := range []originError{{status: 429}, {503, 30 * time.Second}, {500, 0}, {599, time.Hour}} {
		far := fmt.Errorf("a read: %w", &tier.FillError{Namespace: "p", Key: "k", Owner: "n2", Err: fmt.Errorf("%s", e.Error())})
		if got, ok := originErrorOf(far); !ok || got != e {
			t.Errorf("%+v came back as %+v, %v", e, got, ok)
		}
		near := &tier.FillError{Err: tier.Blameless(e)}
		if got, ok := originErrorOf(near); !ok || got != e {
			t.Errorf("%+v became %+v, %v", e, got, ok)
		}
	}
	for _, text := range []string{"", "the origin answers", "the origin answers ", "the origin answers 7", "the origin answers x", "the origin answers 1000 x; Retry-After: 5", "weir: closed"} {
		if got, ok := originErrorOf(&tier.FillError{Err: fmt.Errorf("%s", text)}); ok || got != (originError{}) {
			t.Errorf("%q is %+v", text, got)
		}
	}
}
