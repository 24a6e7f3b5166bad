package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/peer"
)

// leaveFunc is a leaver made from a function.
type leaveFunc func(ctx context.Context) error

func (f leaveFunc) Leave(ctx context.Context) error { return f(ctx) }

// TestUnreadAnswerDoesNotShortenHandOff checks that a client that does not read its answer does not shorten the time
// for the handoff.
func TestUnreadAnswerDoesNotShortenHandOff(t *testing.T) {
	w, err := webConfig{listen: "127.0.0.1:0", maxConnections: 9, grace: 50 * time.Millisecond}.open(slog.DiscardHandler)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	arrived, cutOff := make(chan struct{}), make(chan struct{})
	w.start(w.front, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done() // like a write to a client that does not read
		close(cutOff)
	}), time.Minute)
	conn, err := net.Dial("tcp", w.front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: n\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-arrived
	lost := errors.New("lost")
	err = goDown(w, leaveFunc(func(ctx context.Context) error {
		<-cutOff // http.grace has passed, and the handoff is still running
		if until, ok := ctx.Deadline(); ctx.Err() != nil || !ok || time.Until(until) < 30*time.Second {
			t.Errorf("the hand-off has until %v: %v", until, ctx.Err())
		}
		return lost
	}), time.Minute)
	if !errors.Is(err, lost) || !strings.Contains(err.Error(), "http.grace") {
		t.Error(err)
	}
}

// TestRunningRequestsAreAnswered checks that requests which run when the node is told to end are answered, however long
// the page's streams last.
func TestRunningRequestsAreAnswered(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-release
		_, _ = fmt.Fprint(w, "v")
	}))
	defer origin.Close()
	a, _, log, end := startNode(t, fmt.Sprintf("http: {listen: 127.0.0.1:0}\nnamespaces: {p: {origin: {url: \"%s/{key}\"}, freshness: {ttl: 1m}}}", origin.URL))
	answered, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		resp, err := http.Get(a + "/v1/p/k")
		if err != nil {
			answered <- err.Error()
			return
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		answered <- fmt.Sprint(resp.StatusCode, " ", string(b))
	}()
	<-arrived
	stream, err := http.Get(a + "/weir/events")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	go func() { ended <- end() }()
	if _, err := io.Copy(io.Discard, stream.Body); err != nil && !strings.Contains(err.Error(), "EOF") { // the node ends the stream
		t.Log(err)
	}
	close(release)
	if got := <-answered; got != "200 v" {
		t.Error(got)
	}
	if err := <-ended; err != nil {
		t.Errorf("%v\n%s", err, log)
	}
}

// TestOperatorListener checks that a separate listener hides what operators see from clients that may only read values.
func TestOperatorListener(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, "v") }))
	defer origin.Close()
	cfg, err := parseConfig("weir.yml", fmt.Appendf(nil, "http: {listen: 127.0.0.1:0, operator_listen: 127.0.0.1:0}\nnamespaces: {p: {origin: {url: \"%s/{key}\"}, freshness: {ttl: 1m}}}", origin.URL))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	started, ended := make(chan addresses, 1), make(chan error, 1)
	go func() {
		ended <- runNode(ctx, cfg, &testlog.Log{}, stages{started: func(at addresses) { started <- at }})
	}()
	at := <-started
	for _, c := range []struct {
		addr, method, path string
		code               int
		body               string
	}{
		{at.web, "GET", "/v1/p/k", 200, "v"},
		{at.web, "GET", "/weir/readyz", 200, "ok\n"},
		{at.web, "GET", "/healthz", 200, "ok\n"},
		{at.web, "GET", "/weir/", 404, "another listener"},
		{at.web, "GET", "/weir/stats", 404, "another listener"},
		{at.web, "GET", "/weir/x/stats", 404, "another listener"},
		{at.web, "GET", "/metrics", 404, "another listener"},
		{at.web, "POST", "/v1/invalidate", 404, "another listener"},
		{at.web, "GET", "/", 404, "another listener"},
		{at.operator, "GET", "/weir/stats", 200, "schema"},
		{at.operator, "GET", "/metrics", 200, "weir_"},
		{at.operator, "GET", "/readyz", 200, "ok"},
		{at.operator, "POST", "/v1/invalidate", 403, "operator"},
		{at.operator, "GET", "/", 307, ""},
		{at.operator, "GET", "/v1/p/k", 404, "another listener"},
	} {
		if resp, body := ask(t, c.method, "http://"+c.addr+c.path); resp.StatusCode != c.code || !strings.Contains(body, c.body) {
			t.Errorf("%s %s: %d %.80q", c.method, c.path, resp.StatusCode, body)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestHostNames checks that a request is rejected if an attacker's page could have given the node's address that name.
func TestHostNames(t *testing.T) {
	set := hostSet{"cache.example.com", ".svc.cluster.local"}
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.0.0.1:8080": true, "[::1]:8080": true, "::1": true, "[fe80::1%eth0]:1": true, "localhost": true, "LOCALHOST:80": true, "a.localhost": true, "weir": true, "weir-0:8080": true, "": true,
		"cache.example.com": true, "Cache.Example.com.:80": true, "weir.shop.svc.cluster.local": true,
		"evil.com": false, "evil.com:8080": false, "xcache.example.com": false, "cache.example.com.evil.com": false, "xsvc.cluster.local": false, "127.0.0.1.evil.com": false, "127.0.0.1.nip.io": false, "localhost.evil.com": false,
	} {
		if got := set.allows(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
	if !(hostSet{"*"}).allows("evil.com") || (hostSet)(nil).allows("evil.com") {
		t.Error("* is any name, and nothing is no name")
	}
	r := httptest.NewRequest("GET", "http://evil.com/v1/p/k", nil)
	w := httptest.NewRecorder()
	set.guard(http.NotFoundHandler()).ServeHTTP(w, r)
	if w.Code != http.StatusMisdirectedRequest || !strings.Contains(w.Body.String(), "add it to http.hosts") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestConnectionLimit checks that connections beyond the limit wait, and that the log says so.
func TestConnectionLimit(t *testing.T) {
	cfg := webConfig{listen: "127.0.0.1:0", maxConnections: 2, grace: time.Second}
	log := &testlog.Log{}
	w, err := cfg.open(slog.NewTextHandler(log, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	node, err := peer.Start(t.Context(), peer.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	w.serve(&front{}, node, time.Minute)
	ask := func(c net.Conn) string {
		if _, err := fmt.Fprint(c, "GET /healthz HTTP/1.1\r\nHost: n\r\n\r\n"); err != nil {
			return err.Error()
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err.Error()
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.Proto + " " + resp.Status
	}
	var conns []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", w.front.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		if len(conns) <= 2 {
			if got := ask(c); got != "HTTP/1.1 200 OK" {
				t.Error(got)
			}
		}
	}
	third := make(chan string, 1)
	go func() { third <- ask(conns[2]) }()
	if text := log.String(); strings.Count(text, "raise http.max_connections") != 1 {
		t.Errorf("the log: %s", text)
	}
	for range 200 { // a third connection would be served in less time than that
		if got := ask(conns[1]); got != "HTTP/1.1 200 OK" {
			t.Fatal(got)
		}
	}
	select {
	case got := <-third:
		t.Fatalf("a third connection was served: %s", got)
	default:
	}
	_ = conns[0].Close()
	if got := <-third; got != "HTTP/1.1 200 OK" {
		t.Error(got)
	}
	if err := w.shutdown(); err != nil {
		t.Error(err)
	}
}

// TestConfigSaysWhatWouldFailLater checks that problems which would otherwise appear later are reported at the start,
// with their line.
func TestConfigSaysWhatWouldFailLater(t *testing.T) {
	at := func(node, web, space string) string {
		return fmt.Sprintf("node: {%s}\nhttp: {%s}\nnamespaces:\n  p:\n    freshness: {ttl: 1m}\n    %s\n", node, web, strings.ReplaceAll(space, "URL", "url: 'http://h/{key}'"))
	}
	secret := "secret_file: " + file(t, strings.Repeat("5a5b5c5d", 8))
	const fine = "origin: {URL}"
	for text, want := range map[string]string{
		at("", "", "origin: {URL, headers: {'X Y': a}}"):                            "weir.yml:6: namespaces.p.origin.headers.X Y: \"X Y\" is not a name of a header field",
		at("", "", "origin: {URL, headers: {'X:': a}}"):                             "is not a name",
		at("", "", "origin: {URL, headers: {'Ä': a}}"):                              "is not a name",
		at("", "", "origin: {URL, headers: {'': a}}"):                               "is not a name",
		at("", "", "origin: {URL, headers: {X: \"a\\r\\nY: b\"}}"):                  "control character",
		at("", "", "origin: {URL, headers: {range: bytes=1-}}"):                     "the node sets this header field itself",
		at("", "", "origin: {URL, headers: {Content-length: 1}}"):                   "the node sets this header field itself",
		at("", "", "origin: {URL, redirects: [files.example.com]}"):                 "is not a scheme and a host",
		at("", "", "origin: {URL, redirects: ['https://a/b']}"):                     "is not a scheme and a host",
		at("", "", "origin: {URL, cache_control: obey}"):                            "is not bans, lifetimes or ignore",
		at("", "", "origin: {url: 'http://h/../{key}'}"):                            "has a path segment",
		at("", "", "origin: {url: 'http://h/%2e%2e/{key}'}"):                        "has a path segment",
		at("", "", "origin: {url: 'http://{key}@h/'}"):                              "{key} belongs",
		at("", "", fine+"\n    query: yes"):                                         "namespaces.p.query: \"yes\" is not refuse or key",
		at("", "", "origin: {url: 'http://h/?q={key}'}\n    query: key"):            "the query comes from the client",
		at("", "", fine+"\n    client_cache_control: no"):                           "is not obey or ignore",
		at("", "", fine+"\n    hot_keys_file: /nonexistent/hot"):                    "weir.yml:7: namespaces.p.hot_keys_file: its directory cannot be written to",
		at("", "", fine+"\n    hot_keys_file: "+t.TempDir()):                        "is not a regular file",
		at("", "", fine) + "---\nnode: {name: b}\n":                                 "weir.yml:8: a second document begins",
		at("", "", fine) + "---\na: [":                                              "line",
		at("", "max_connections: -1", fine):                                         "weir.yml:2: http.max_connections: -1 is below 0",
		at("", "hosts: ['http://a.b']", fine):                                       "is not a name",
		at("", "hosts: ['a.*']", fine):                                              "is not a name",
		at("", "operator_listen: 8081", fine):                                       "weir.yml:2: http.operator_listen",
		at("advertise: '0.0.0.0:7946'", "", fine):                                   "weir.yml:1: node.advertise",
		at("advertise: '10.0.0.1:0'", "", fine):                                     "weir.yml:1: node.advertise",
		at("advertise: '224.0.0.1:7946'", "", fine):                                 "weir.yml:1: node.advertise: others cannot dial",
		at("advertise: '255.255.255.255:7946'", "", fine):                           "weir.yml:1: node.advertise: others cannot dial",
		at("bind: '10.0.0.1:7946', advertise: '127.0.0.1:7946', "+secret, "", fine): "weir.yml:1: node.advertise: \"127.0.0.1:7946\" is the loopback",
		at("bind: '10.0.0.1:7946', advertise: 'localhost:7946', "+secret, "", fine): "weir.yml:1: node.advertise: \"localhost:7946\" is the loopback",
		at("bind: '10.0.0.1:7946', advertise: '[fe80::1]:7946', "+secret, "", fine): "weir.yml:1: node.advertise: \"[fe80::1]:7946\" is a link-local address without a zone",
	} {
		if _, err := parseConfig("weir.yml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{
		at("", "hosts: ['a.b', '.svc', '*'], max_connections: 5, operator_listen: 'h:1'", fine+"\n    hot_keys_file: "+filepath.Join(t.TempDir(), "hot")), at("", "", fine) + "---\n", "---\n" + at("", "", fine),
		at("bind: '10.0.0.1:7946', advertise: '192.0.2.1:7946', "+secret, "", fine), at("advertise: '127.0.0.1:7946'", "", "origin: {URL, headers: {Host: x, X-A: ''}}"),
	} {
		if _, err := parseConfig("weir.yml", []byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}
