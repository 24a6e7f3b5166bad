package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// ask sends a request with headers ("Name: value") and returns the answer and its body.
func ask(t *testing.T, method, url string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // follows no redirects
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestFront(t *testing.T) {
	var loads, conditional atomic.Int64
	release := make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		loads.Add(1)
		switch path := r.URL.EscapedPath(); path {
		case "/p/missing":
			http.NotFound(w, r)
		case "/p/broken":
			http.Error(w, "secret details", http.StatusInternalServerError)
		case "/p/slow":
			select {
			case <-release:
			case <-r.Context().Done():
			}
		case "/p/large":
			_, _ = w.Write(make([]byte, 100<<10))
		case "/p/tagged":
			if r.Header.Get("If-None-Match") == `"v1"` {
				conditional.Add(1)
				w.WriteHeader(http.StatusNotModified)
				return
			}
			w.Header().Set("ETag", `"v1"`)
			fmt.Fprint(w, "tagged")
		default:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, "%s %s", path, r.Header.Get("X-From"))
		}
	}))
	defer origin.Close()
	defer close(release)
	web, _, log, end := startNode(t, fmt.Sprintf(`
node: {name: "n\"1"}
http: {listen: 127.0.0.1:0}
namespaces:
  p:
    origin: {url: "%s/p/{key}", headers: {X-From: weir}}
    freshness: {ttl: 1m, stale_if_error: 1h}
    value_limit: 64KiB
  impatient: {origin: {url: "%s/p/{key}", timeout: 300ms}, freshness: {ttl: 1m}}
  kept: {origin: {url: "%s/{key}"}, freshness: {ttl: 1m}, client_max_age: 10s}
`, origin.URL, origin.URL, origin.URL))

	resp, body := ask(t, "GET", web+"/v1/p/a")
	etag := resp.Header.Get("ETag")
	if resp.StatusCode != 200 || body != "/p/a weir" || resp.Header.Get("Content-Type") != "application/json" || etag == "" || !regexp.MustCompile(`^\d+$`).MatchString(resp.Header.Get("Age")) ||
		resp.Header.Get("Cache-Control") != "no-cache" || !regexp.MustCompile(`^"n\\"1"; fwd=miss; stored; ttl=\d+`).MatchString(resp.Header.Get("Cache-Status")) {
		t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
	}
	resp, _ = ask(t, "GET", web+"/v1/p/a")
	// The near tier stores its copies asynchronously.
	if s := resp.Header.Get("Cache-Status"); !regexp.MustCompile(`^"n\\"1"; hit; ttl=\d+; detail=(near|owned)`).MatchString(s) || loads.Load() != 1 {
		t.Errorf("again: %q, %d loads", s, loads.Load())
	}
	for _, c := range []struct {
		method, path string
		headers      []string
		code         int
		body         string
	}{
		{"GET", "/v1/p/a", []string{"If-None-Match: " + etag}, 304, ""},
		{"GET", "/v1/p/a", []string{`If-None-Match: "other"`}, 200, "/p/a weir"},
		{"HEAD", "/v1/p/a", nil, 200, ""},
		{"GET", "/v1/p/a", []string{"Range: bytes=1-3"}, 206, "p/a"},
		{"GET", "/v1/p/with%20space/and%2Fslash", nil, 200, "/p/with%20space%2Fand%2Fslash weir"},
		{"GET", "/v1/p/..", nil, 400, "could leave its place"},
		{"GET", "/v1/p/x?y", nil, 400, "takes no query"},
		{"GET", "/v1/p/missing", nil, 404, "no such key"},
		{"GET", "/v1/p/broken", nil, 502, "could not be read"},
		{"GET", "/v1/impatient/slow", nil, 504, "in time"},
		{"GET", "/v1/p/large", nil, 502, "could not be read"},
		{"GET", "/v1/p/" + strings.Repeat("k", 2000), nil, 414, "too long"},
		{"GET", "/v1/p/", nil, 404, "key is empty"},
		{"GET", "/v1/p", nil, 404, "address is"},
		{"GET", "/v1/q/a", nil, 404, "no namespace"},
		{"POST", "/v1/p/a", nil, 405, "/v1/invalidate"},
		{"DELETE", "/v1/p/a", nil, 405, "only"},
		{"POST", "/v1/invalidate", nil, 403, "without an operator's token"},
		{"GET", "/nothing", nil, 404, "the page is at"},
		{"GET", "/", nil, 307, ""},
		{"GET", "/weir/readyz", nil, 200, "ok"},
		{"GET", "/metrics", nil, 200, "weir_reads_total"},
	} {
		resp, body := ask(t, c.method, web+c.path, c.headers...)
		if resp.StatusCode != c.code || !strings.Contains(body, c.body) || strings.Contains(body, "secret") {
			t.Errorf("%s %.40s %v: %d %.100q", c.method, c.path, c.headers, resp.StatusCode, body)
		}
	}
	if resp, _ := ask(t, "GET", web+"/v1/kept/a"); resp.Header.Get("Cache-Control") != "max-age=10" {
		t.Errorf("client_max_age: %v", resp.Header)
	}

	// A client may ask for a fresher answer; the origin's own ETag makes that cheap.
	ask(t, "GET", web+"/v1/p/tagged")
	before := loads.Load()
	ask(t, "GET", web+"/v1/p/tagged", "Cache-Control: max-age=30")
	if loads.Load() != before {
		t.Error("a copy that was young enough was loaded again")
	}
	timer := time.NewTimer(1100 * time.Millisecond)
	<-timer.C
	resp, body = ask(t, "GET", web+"/v1/p/tagged", "Cache-Control: max-age=1")
	if loads.Load() != before+1 || conditional.Load() != 1 || body != "tagged" {
		t.Errorf("%d loads, %d conditional, %q %v", loads.Load()-before, conditional.Load(), body, resp.Header)
	}

	// SIGTERM ends the node even while a page is open.
	stream, err := http.Get(web + "/weir/events")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	if err := end(); err != nil {
		t.Error(err)
	}
	if text := log.String(); !strings.Contains(text, "serving") || !strings.Contains(text, "going down") || !strings.Contains(text, "closed") {
		t.Error(text)
	}
}

// TestDrain checks that a draining node is not ready but still answers.
func TestDrain(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "v") }))
	defer origin.Close()
	draining, served := make(chan time.Duration), make(chan struct{})
	drain := func(d time.Duration) {
		draining <- d
		<-served
	}
	web, _, _, end := startStages(t, fmt.Sprintf("http: {listen: 127.0.0.1:0, drain: 2s}\nnamespaces: {p: {origin: {url: \"%s/{key}\"}, freshness: {ttl: 1m}}}", origin.URL), drain)
	ended := make(chan error, 1)
	go func() { ended <- end() }()
	if d := <-draining; d != 2*time.Second {
		t.Errorf("it drains for %v", d)
	}
	if resp, _ := ask(t, "GET", web+"/weir/readyz"); resp.StatusCode != 503 {
		t.Errorf("readyz says %d", resp.StatusCode)
	}
	if resp, body := ask(t, "GET", web+"/v1/p/k"); resp.StatusCode != 200 || body != "v" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	close(served)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
