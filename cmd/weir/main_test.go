package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(patient{m}) }

// patient waits for memberlist's last probes, which outlast Close by up to two seconds.
type patient struct{ m *testing.M }

func (p patient) Run() int {
	code := p.m.Run()
	http.DefaultClient.CloseIdleConnections()
	for end := time.Now().Add(4 * time.Second); goleak.Find() != nil && time.Now().Before(end); {
	}
	return code
}

// try runs a command line and returns its exit code and output.
func try(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, &world{out: &o, err: &e})
	return code, o.String(), e.String()
}

const token = "correct-horse-battery-staple"

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// startNode runs weir node with a configuration. end stops it as SIGTERM does and returns its error.
func startNode(t *testing.T, text string) (web, peers string, log *testlog.Log, end func() error) {
	t.Helper()
	return startStages(t, text, nil)
}

// startStages is startNode with a custom drain.
func startStages(t *testing.T, text string, drain func(time.Duration)) (web, peers string, log *testlog.Log, end func() error) {
	t.Helper()
	cfg, err := parseConfig("weir.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	log = &testlog.Log{}
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan addresses, 1), make(chan error, 1)
	go func() { ended <- runNode(ctx, cfg, log, stages{func(at addresses) { started <- at }, drain}) }()
	end = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = end() })
	select {
	case at := <-started:
		return "http://" + at.web, at.peers, log, end
	case err := <-ended:
		t.Fatalf("%v\n%s", err, log)
		return
	}
}

// numbered returns n keys, one per line.
func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "w%d\n", i)
	}
	return b.String()
}

// TestCommands runs the commands against a cluster of two, one member of which then leaves.
func TestCommands(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "value of ", r.URL.Path) }))
	defer origin.Close()
	conf := func(name, join string) string {
		return fmt.Sprintf("node: {name: %s, join: [%s], operator_token_file: %s}\nhttp: {listen: 127.0.0.1:0}\nnamespaces:\n  product: {origin: {url: \"%s/{key}\"}, freshness: {ttl: 1m, near_ttl: 1m}}\n", name, join, file(t, token+"\n"), origin.URL)
	}
	a, peers, _, _ := startNode(t, conf("n1", ""))
	b, _, _, endB := startNode(t, conf("n2", peers))
	addr, secret := "--addr="+a+"/weir", "--token-file="+file(t, token)
	for _, base := range []string{a, b} {
		for range 2 {
			resp, err := http.Get(base + "/v1/product/k1")
			if err != nil || resp.StatusCode != 200 {
				t.Fatal(resp, err)
			}
			_ = resp.Body.Close()
		}
	}
	for _, c := range []struct {
		args []string
		code int
		out  []string
		err  string
	}{
		{[]string{"stats", addr}, 0, []string{"NAMESPACE", "product", "50.0 %"}, ""},
		{[]string{"members", addr}, 0, []string{"n1", "n2", "alive", "yes"}, ""},
		{[]string{"top", addr, "--times=2", "--every=200ms"}, 0, []string{"2 of 2 members", "READS/S", "0.0"}, ""},
		{[]string{"ring", "k1", "-n", "product", addr, secret}, 0, []string{"owned by n", "near", "owned", "partition"}, ""},
		{[]string{"ring", "k2", "-n", "product", addr, secret}, 0, []string{"no copy"}, ""},
		{[]string{"ring", "k1", "-n", "product", addr}, exitUsage, nil, "--token-file"},
		{[]string{"ring", "k1", "-n", "nope", addr, secret}, exitFailed, nil, "no namespace"},
		{[]string{"ring", "k1", addr}, exitUsage, nil, "--namespace"},
		{[]string{"ring", addr}, exitUsage, nil, "accepts 1 arg"},
		{[]string{"invalidate", "-n", "product", "k1", addr, "--token-file=" + file(t, "wrong-wrong-wrong-wrong")}, exitFailed, nil, "refuses the token"},
		{[]string{"invalidate", "-n", "product", "k1", addr, "--token-file=/nonexistent"}, exitUsage, nil, "no such file"},
		{[]string{"invalidate", "-n", "product", addr, secret}, exitUsage, nil, "no keys"},
		{[]string{"invalidate", "-n", "product", "--keys", file(t, strings.Repeat("key\n", 1500)), "k1", addr, secret}, 0, []string{"1501 keys"}, ""},
		{[]string{"ring", "k1", "-n", "product", addr, secret}, 0, []string{"no copy"}, ""},
		{[]string{"invalidate", "-n", "product", "--tag", "brand:7", "--tag=x", "k1", addr, secret}, 0, []string{"1 keys and 2 tags of product are invalidated"}, ""},
		{[]string{"invalidate", "-n", "product", "--all", addr, secret}, 0, []string{"everything of product is invalidated"}, ""},
		{[]string{"invalidate", "-n", "product", "--all", "k1", addr, secret}, exitUsage, nil, "--all is everything"},
		{[]string{"invalidate", "-n", "product", "--tag", strings.Repeat("t", 2000), addr, secret}, exitFailed, nil, "tag 1 of 1"},
		{[]string{"stats", "--ages", addr}, 0, []string{"SERVED FROM", "fill", "OLDEST SERVED", "of 1m0s"}, ""},
		{[]string{"warm", "k", addr, secret}, exitUsage, nil, "--namespace"},
		{[]string{"warm", "-n", "product", addr, secret}, exitUsage, nil, "no keys"},
		{[]string{"warm", "-n", "product", "k", addr}, exitUsage, nil, "--token-file"},
		{[]string{"warm", "-n", "nope", "k", addr, secret}, exitFailed, nil, "no namespace"},
		{[]string{"warm", "-n", "product", "--keys", file(t, numbered(2100)), addr, secret}, 0, []string{"LOADED", "2100"}, ""},
		{[]string{"ring", "w2099", "-n", "product", addr, secret}, 0, []string{"FRESH FOR", "owned"}, ""},
		{[]string{"warm", "-n", "product", strings.Repeat("k", 2000), "w1", addr, secret}, exitPartial, []string{"PRESENT", "1"}, "1 keys were not warmed"},
		{[]string{"drill", addr, secret}, exitUsage, nil, "--namespace"},
		{[]string{"drill", "-n", "product", "--fraction=2", addr, secret}, exitUsage, nil, "--fraction"},
		{[]string{"drill", "-n", "product", "--for=2h", addr, secret}, exitUsage, nil, "--for"},
		{[]string{"drill", "-n", "product", addr}, exitUsage, nil, "--token-file"},
		{[]string{"drill", "-n", "nope", addr, secret}, exitFailed, nil, "no namespace"},
		{[]string{"drill", "-n", "product", "--stop", addr, secret}, exitFailed, nil, "no operator's drill"},
		{[]string{"drill", "-n", "product", "--for=100ms", addr, secret}, 0, []string{"MEMBER", "n1", "time"}, ""},
		{[]string{"stats", "--addr=:bad"}, exitUsage, nil, "no address"},
		{[]string{"stats", "--addr=" + a + "/elsewhere"}, exitTarget, nil, "no stats endpoint"},
		{[]string{"stats", "--addr=http://127.0.0.1:1"}, exitTarget, nil, "nothing answers"},
		{[]string{"stats", "--addr=" + origin.URL}, exitTarget, nil, "not weir"},
		{[]string{"stats", "more"}, exitUsage, nil, "unknown command"},
		{[]string{"fly"}, exitUsage, nil, "unknown command"},
		{[]string{"stats", "--fly"}, exitUsage, nil, "unknown flag"},
		{[]string{"top", addr, "--every=1ms"}, exitUsage, nil, "at least"},
		{[]string{"node"}, exitUsage, nil, "--config"},
		{[]string{"node", "--config=/nonexistent"}, exitUsage, nil, "no such file"},
		{[]string{"--version"}, 0, []string{"weir version"}, ""},
		{[]string{"completion", "bash"}, 0, []string{"bash completion"}, ""},
	} {
		code, out, errs := try(t, c.args...)
		if code != c.code || !strings.Contains(errs, c.err) || (c.err == "") != (errs == "") {
			t.Errorf("%v: %d\n%s%s", c.args, code, out, errs)
		}
		for _, text := range c.out {
			if !strings.Contains(out, text) {
				t.Errorf("%v: %q is not in\n%s", c.args, text, out)
			}
		}
	}
	for _, args := range [][]string{{"stats"}, {"members"}, {"top", "--times=1"}, {"ring", "k", "-n", "product", secret}, {"invalidate", "k", "-n", "product", secret}, {"warm", "k", "-n", "product", secret}, {"drill", "-n", "product", "--for=100ms", secret}} {
		code, out, errs := try(t, append(args, "--json", addr)...)
		if code != 0 || !json.Valid([]byte(out)) {
			t.Errorf("%v --json: %d %s %s", args, code, out, errs)
		}
	}
	ctx, interrupt := context.WithCancel(t.Context())
	var o, e bytes.Buffer
	ended := make(chan int)
	go func() {
		ended <- run(ctx, []string{"drill", "-n", "product", "--for=1h", "--cluster", addr, secret}, &world{out: &o, err: &e})
	}()
	for running := false; !running; { // as weir top shows
		_, out, _ := try(t, "top", addr, "--times=1")
		running = strings.Contains(out, "a drill of product on n1") && strings.Contains(out, "on n2: 5 % of the hits")
	}
	interrupt()
	if code := <-ended; code != 0 || strings.Count(o.String(), "context") != 2 {
		t.Errorf("a drill that is interrupted: %d\n%s%s", code, o.String(), e.String())
	}
	if err := endB(); err != nil {
		t.Error(err)
	}
	if code, out, _ := try(t, "members", addr); code != 0 || strings.Contains(out, "n2") {
		t.Errorf("after n2 has left: %d %s", code, out)
	}
}

// halfGone starts a node a with a cache and an operator's page at addr, and a node b that has ended abruptly.
func halfGone(t *testing.T, gossip peer.Gossip) (a *peer.Node, addr, secret string) {
	quiet := slog.New(slog.DiscardHandler)
	a, err := peer.Start(t.Context(), peer.Config{Name: "a", Logger: quiet, Gossip: gossip, OperatorToken: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	b, err := peer.Start(t.Context(), peer.Config{Name: "b", Join: []string{a.Addr()}, Logger: quiet, Gossip: gossip})
	if err != nil {
		t.Fatal(err)
	}
	c, err := tier.New(tier.Config[string]{
		Cluster: a, Namespace: "p", Freshness: tier.Freshness{TTL: time.Minute}, InvalidateTimeout: 300 * time.Millisecond,
		Loader: tier.ByKey(func(context.Context, string) (string, error) { return "v", nil }),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	s := httptest.NewServer(a.Handler())
	t.Cleanup(s.Close)
	_ = b.Close()
	return a, "--addr=" + s.URL + "/", "--token-file=" + file(t, token)
}

// TestPartialInvalidation checks that the exit code reports an invalidation that did not reach a member.
func TestPartialInvalidation(t *testing.T) {
	_, addr, secret := halfGone(t, peer.Gossip{ProbeInterval: time.Hour}) // a does not notice that b has ended
	if code, out, errs := try(t, "invalidate", "k", "-n", "p", addr, secret); code != exitPartial || !strings.Contains(errs, "did not reach b") || !strings.Contains(out, "1 keys") {
		t.Errorf("invalidate: %d %s %s", code, out, errs)
	}
}

// TestPartial checks that the exit code reports an incomplete answer when a member is missing.
func TestPartial(t *testing.T) {
	a, addr, secret := halfGone(t, peer.Gossip{ProbeInterval: time.Second, ProbeTimeout: 300 * time.Millisecond, SuspicionMult: 3})
	for a.View().Len() > 1 {
		select {
		case <-a.ViewChanged():
		case <-time.After(2 * time.Minute):
			t.Fatal("b was not noticed")
		}
	}
	for _, args := range [][]string{{"stats"}, {"members"}, {"members", "--json"}, {"ring", "k", "-n", "p", secret}} {
		if code, out, errs := try(t, append(args, addr)...); code != exitPartial || !strings.Contains(errs, "no answer from b") || out == "" {
			t.Errorf("%v: %d %s %s", args, code, out, errs)
		}
	}
	if code, out, _ := try(t, "top", "--times=1", addr); code != 0 || !strings.Contains(out, "no answer from b") {
		t.Errorf("top: %d %s", code, out)
	}
}

// TestForeignTargets checks targets that are not weir, are another version of it, or try to manipulate the terminal.
func TestForeignTargets(t *testing.T) {
	body := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, body) }))
	defer s.Close()
	for text, want := range map[string]string{
		"":                        "not weir",
		"<html>":                  "not weir",
		"{}":                      "not weir",
		`{"schema":7}`:            "schema 7",
		`{"schema":1}`:            "not weir",
		`{"schema":1,"by":3}`:     "not weir",
		`{"schema":"one"}`:        "not weir",
		strings.Repeat("[", 1e5):  "not weir",
		`{"schema":1,"by":"a"`:    "not weir",
		`{"schema":1,"members":1`: "not weir",
	} {
		body = text
		if code, out, errs := try(t, "stats", "--addr="+s.URL); code != exitTarget || !strings.Contains(errs, want) || out != "" {
			t.Errorf("%.30q: %d %q %q", text, code, out, errs)
		}
	}
	body = `{"schema":1,"by":"a","members":[{"name":"a\u001b[2J","stats":{"node":5}}],"missing":[{"name":"b\u0007","reason":"\u001b]0;x"}],"total":{"p\u001b":{"near":"x","governor":3}}}`
	for _, command := range []string{"stats", "members"} {
		code, out, errs := try(t, command, "--addr="+s.URL)
		if code != exitPartial || strings.ContainsAny(out+errs, "\x1b\x07") || !strings.Contains(out, "?") {
			t.Errorf("%s: %d %q %q", command, code, out, errs)
		}
	}
}

// TestPortTaken checks that an occupied port and an impossible listener give clear errors.
func TestPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conf := file(t, fmt.Sprintf("http: {listen: %q}\nnamespaces: {p: {origin: {url: \"http://h/{key}\"}, freshness: {ttl: 1m}}}\n", ln.Addr()))
	if code, _, errs := try(t, "node", "--config", conf); code != exitFailed || !strings.Contains(errs, "http.listen") {
		t.Errorf("%d %s", code, errs)
	}
	if code, out, errs := try(t, "node", "--check", "--config", conf); code != 0 || !strings.Contains(out, "nothing is wrong") {
		t.Errorf("%d %s %s", code, out, errs)
	}
}
