package main

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/peer/peertest"
	"github.com/weircache/weir/tier"
)

// A rig is a front with one namespace, p, and an origin that the test controls, in virtual time.
type rig struct {
	t      *testing.T
	front  *front
	answer func(*http.Request) *http.Response
	asked  []*http.Request
}

// RoundTrip implements http.RoundTripper.
func (g *rig) RoundTrip(r *http.Request) (*http.Response, error) {
	g.asked = append(g.asked, r)
	resp := g.answer(r)
	time.Sleep(originTime)
	resp.Request = r
	return resp, nil
}

// says makes the origin answer with a status, a body and headers ("Name: value").
func (g *rig) says(status int, body string, headers ...string) {
	g.answer = func(*http.Request) *http.Response {
		resp := &http.Response{StatusCode: status, Status: http.StatusText(status), Header: make(http.Header), Body: io.NopCloser(strings.NewReader(body))}
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			resp.Header.Add(name, value)
		}
		return resp
	}
}

// onRig runs a test in a bubble. settings are lines of the namespace, with %s for the origin's own settings.
func onRig(t *testing.T, settings string, f func(t *testing.T, g *rig)) {
	t.Helper()
	peertest.Bubble(t, func(t *testing.T) {
		if !strings.Contains(settings, "origin:") {
			settings += "\n    origin: {url: 'http://origin/p/{key}'}"
		}
		cfg, err := parseConfig("weir.yml", []byte("namespaces:\n  p:\n    "+rigContract+"\n    "+settings))
		if err != nil {
			t.Fatal(err)
		}
		n := cfg.namespaces[0]
		g := &rig{t: t, front: &front{node: "n", spaces: make(map[string]*space), logger: slog.New(slog.DiscardHandler)}}
		g.says(200, "v")
		n.cache.Loader = newOrigin(n, g).load
		cache, err := tier.New(n.cache)
		if err != nil {
			t.Fatal(err)
		}
		defer closeCache(cache)
		g.front.spaces["p"] = newSpace(n, cache)
		f(t, g)
	})
}

// get requests a path below /v1/p/.
func (g *rig) get(path string, headers ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, "/v1/p/"+path, nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	g.front.ServeHTTP(w, r)
	synctest.Wait() // for a refresh that it may have started
	return w.Result()
}

// want requests a path and checks the answer: its status, the text in its body, and how often the origin has been asked
// since the rig began.
func (g *rig) want(path string, status int, body string, asked int, headers ...string) *http.Response {
	g.t.Helper()
	resp := g.get(path, headers...)
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != status || !strings.Contains(string(b), body) || len(g.asked) != asked {
		g.t.Errorf("%s %v: %d %q, the origin was asked %d times; want %d %q and %d\n%v", path, headers, resp.StatusCode, b, len(g.asked), status, body, asked, resp.Header)
	}
	return resp
}

// header compares a header of an answer.
func (g *rig) header(resp *http.Response, name, want string) {
	g.t.Helper()
	if got := strings.Join(resp.Header.Values(name), " | "); got != want {
		g.t.Errorf("%s is %q, want %q", name, got, want)
	}
}
