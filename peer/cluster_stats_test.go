package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/ring"
)

// told is a namespace whose statistics, copies and invalidations are set by a test.
type told struct {
	stats func() any
	keys  chan []string
	err   error
	// unreached are members for which an invalidation fails with err.
	unreached []string
}

func (told) TryServe(*codec.Request, *codec.Response) bool          { return false }
func (told) Serve(context.Context, *codec.Request, *codec.Response) {}
func (h told) Stats() any                                           { return h.stats() }
func (h told) InspectKey(key string) any {
	return []map[string]any{{"tier": "owned", "age_seconds": len(key)}}
}
func (h told) InvalidateFor(_ context.Context, keys, tags []string, all bool, version uint64) (string, []string, time.Time, error) {
	if all {
		keys = append(keys, "all")
	}
	for _, t := range tags {
		keys = append(keys, fmt.Sprint("tag ", t, version))
	}
	h.keys <- keys
	if h.err != nil {
		return "t", h.unreached, time.Unix(1, 0).UTC(), h.err
	}
	return "t", nil, time.Time{}, nil
}

func telling(doc any) told {
	return told{stats: func() any { return doc }, keys: make(chan []string, 8)}
}

func register(t *testing.T, n *Node, namespace string, h codec.Handler) {
	t.Helper()
	if _, err := n.Register(namespace, 1, h); err != nil {
		t.Fatal(err)
	}
}

func clusterOf(t *testing.T, n *Node) ClusterStats {
	t.Helper()
	code, body := get(n.Handler(), "/weir/stats?cluster=1")
	var c ClusterStats
	if err := json.Unmarshal([]byte(body), &c); code != 200 || err != nil {
		t.Fatalf("%d %v %s", code, err, body)
	}
	return c
}

// TestClusterStats checks that any member reports on all members, adds up their statistics, and names the missing ones with
// the reason.
func TestClusterStats(t *testing.T) {
	a := start(t, quick("a"))
	b := start(t, quick("b", a.Addr()))
	c := start(t, quick("c", a.Addr()))
	awaitNames(t, "a b c", a, b, c)
	for i, n := range []*Node{a, b, c} {
		register(t, n, "product", telling(map[string]any{"loads": i + 1, "contract": "fresh", "steps": map[string]any{"db": map[string]any{"max_seconds": float64(i), "calls": 2}}}))
	}
	register(t, b, "broken", told{stats: func() any { panic("no") }})
	register(t, b, "nan", telling(map[string]any{"ratio": math.NaN()}))

	doc := clusterOf(t, b)
	var names []string
	for _, m := range doc.Members {
		names = append(names, m.Name)
		var s Stats
		if err := json.Unmarshal(m.Stats, &s); err != nil || s.Node.Name != m.Name || s.Node.Version == "" || len(s.Events) == 0 {
			t.Errorf("%s: %v %s", m.Name, err, m.Stats)
		}
		if (m.RTT > 0) != (m.Name != "b") || m.RTT > 2 {
			t.Errorf("%s: the round trip took %v s", m.Name, m.RTT)
		}
	}
	if strings.Join(names, " ") != "a b c" || doc.By != "b" || len(doc.Missing) != 0 || doc.Schema != StatsSchema {
		t.Errorf("%v by %s, missing %v", names, doc.By, doc.Missing)
	}
	want := map[string]any{"loads": 6.0, "contract": "fresh", "steps": map[string]any{"db": map[string]any{"max_seconds": 2.0, "calls": 6.0}}}
	if !reflect.DeepEqual(doc.Total["product"], want) {
		t.Errorf("total: %v", doc.Total["product"])
	}
	for space, text := range map[string]string{"broken": "panicked", "nan": "NaN"} {
		if m, _ := doc.Total[space].(map[string]any); m == nil || !strings.Contains(m["error"].(string), text) {
			t.Errorf("%s: %v", space, doc.Total[space])
		}
	}

	_ = c.Close()
	awaitNames(t, "a b", a, b)
	doc = clusterOf(t, a)
	if len(doc.Members) != 2 || len(doc.Missing) != 1 || doc.Missing[0].Name != "c" || doc.Missing[0].State != StateLost || !strings.Contains(doc.Missing[0].Reason, "lost since") {
		t.Errorf("%d members, missing %+v", len(doc.Members), doc.Missing)
	}
}

// TestForeignStats checks that a member that answers in another version's format, or with too much, is listed as missing
// and not mixed in.
func TestForeignStats(t *testing.T) {
	for body, want := range map[string]string{
		`{"schema":2}`:                       "schema 2, this node understands 1",
		`{"schema":"x"}`:                     "no JSON",
		`<html>`:                             "no JSON",
		strings.Repeat(" ", statsLimit) + "": "no JSON",
		strings.Repeat(" ", statsLimit+1):    "the limit is",
	} {
		if _, err := checkStats([]byte(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v", body, err)
		}
	}
	for status, want := range map[codec.Status]string{
		codec.StatusUnknown: "does not understand", codec.StatusTooLarge: "too large", codec.StatusBusy: "too much", codec.StatusFailed: "says",
	} {
		if _, err := documentOf(&codec.Response{Status: status}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("status %d: %v", status, err)
		}
	}
	// Unknown questions do no harm.
	a := start(t, quick("a"))
	b := start(t, quick("b", a.Addr()))
	awaitNames(t, "a b", a, b)
	to, _ := a.View().Member("b")
	for _, key := range []string{"x", "k", "k1234567", "k12345678", "k12345678k"} {
		var resp codec.Response
		err := a.Call(t.Context(), to, &codec.Request{Kind: codec.KindGet, Namespace: []byte(askNamespace), Schema: StatsSchema, Key: []byte(key)}, &resp)
		if err != nil || (resp.Status == codec.StatusValue) != (len(key) > 9) {
			t.Errorf("%q: %v %d %q", key, err, resp.Status, resp.Text)
		}
		resp.Release()
	}
	if _, err := a.Register(askNamespace, 1, telling(nil)); err == nil {
		t.Error("the reserved namespace was given away")
	}
}

type saying struct{ status codec.Status }

func (s saying) TryServe(_ *codec.Request, r *codec.Response) bool {
	r.Status = s.status
	return true
}
func (saying) Serve(context.Context, *codec.Request, *codec.Response) {}
func (saying) Stats() any                                             { return nil }

func TestClusterStatsEnds(t *testing.T) {
	n := start(t, quick("a"))
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	register(t, n, "slow", told{stats: func() any { <-release; return 1 }})
	done := make(chan error)
	go func() {
		_, err := n.ClusterStats(ctx)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(release)
	_ = n.Close()
	if _, err := n.ClusterStats(t.Context()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if code, _ := get(n.Handler(), "/stats?cluster=1"); code != 503 {
		t.Error(code)
	}
	if code, _ := get(n.Handler(), "/stats?cluster=all"); code != 400 {
		t.Error(code)
	}
}

func TestAddStats(t *testing.T) {
	got := addStats(
		map[string]any{"n": 1.0, "j": json.Number("2"), "max": 3.0, "a_max": 9.0, "p99": 1.0, "s": "x", "b": false, "list": []any{1}, "x_per_y": 1.0, "o": map[string]any{"n": 1.0}, "projection": map[string]any{}, "drill": map[string]any{"n": 1.0}},
		map[string]any{"n": 2.0, "max": 2.0, "a_max": 10.0, "p99": 4.0, "s": "y", "b": true, "o": map[string]any{"n": 5.0}, "recent_x": 1.0, "mixed": 1.0},
		map[string]any{"s": "x", "o": "not an object", "mixed": map[string]any{"n": 1.0}},
	)
	want := map[string]any{"n": 3.0, "j": 2.0, "max": 3.0, "a_max": 10.0, "p99": 4.0, "s": "x | y", "b": true, "o": map[string]any{"n": 6.0}, "mixed": map[string]any{"n": 1.0}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// send sends a request to an operator's endpoint with a token.
func send(n *Node, method, target, token, body string) (int, string) {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	w := httptest.NewRecorder()
	n.Handler().ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

const testToken = "correct-horse-battery-staple"

func TestOperator(t *testing.T) {
	log := &testlog.Log{}
	cfg := quick("a")
	cfg.OperatorToken, cfg.Logger = testToken, log.Logger()
	a := start(t, cfg)
	b := start(t, quick("b", a.Addr()))
	awaitNames(t, "a b", a, b)
	h := telling(1)
	register(t, a, "product", h)
	register(t, b, "product", telling(1))
	register(t, a, "fixed", saying{})
	failing := telling(1)
	failing.err, failing.unreached = errors.New("b did not confirm"), []string{"b"}
	bad := telling(1)
	bad.err = errors.New("key 1 of 1: too large")
	register(t, a, "failing", failing)
	register(t, a, "bad", bad)

	good := `{"namespace":"product","keys":["k1","k2"]}`
	for _, c := range []struct {
		token, body string
		code        int
		says        string
	}{
		{"", good, 401, "operator's token"},
		{"Bearer " + testToken + "x", good, 401, "operator's token"},
		{"Bearer ", good, 401, "operator's token"},
		{testToken, good, 401, "operator's token"},
		{"Bearer " + testToken, good, 200, `"invalidated": 2`},
		{"Bearer " + testToken, `{"namespace":"product","keys":["k3"],"tags":["brand:7"],"version":5}`, 200, `"token": "t"`},
		{"Bearer " + testToken, `{"namespace":"product","all":true}`, 200, `"invalidated": 1`},
		{"Bearer " + testToken, `{"namespace":"failing","keys":["k"]}`, 502, "b did not confirm"},
		{"Bearer " + testToken, `{"namespace":"failing","keys":["k"]}`, 502, `"clean_by": "1970`},
		{"Bearer " + testToken, `{"namespace":"bad","keys":["k"]}`, 400, `"error": "key 1 of 1: too large"`},
		{"Bearer " + testToken, `{"namespace":"nope","keys":["k"]}`, 404, "no namespace"},
		{"Bearer " + testToken, `{"namespace":"fixed","keys":["k"]}`, 501, "cannot be invalidated"},
		{"Bearer " + testToken, `{"namespace":"product"}`, 400, "no keys"},
		{"Bearer " + testToken, `{"namespace":"product","keyz":["k"]}`, 400, "keyz"},
		{"Bearer " + testToken, good + good, 400, "more after"},
		{"Bearer " + testToken, `[`, 400, "not {"},
		{"Bearer " + testToken, `{"namespace":"` + strings.Repeat("x", maxOperatorBody), 413, "longer than"},
	} {
		if code, body := send(a, http.MethodPost, "/weir/invalidate", c.token, c.body); code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%.40q %.40s: %d %s", c.token, c.body, code, body)
		}
	}
	for _, want := range []string{"[k1 k2]", "[k3 tag brand:75]", "[all]"} {
		if got := fmt.Sprint(<-h.keys); got != want {
			t.Errorf("invalidated %v, want %s", got, want)
		}
	}
	if len(h.keys) != 0 {
		t.Errorf("invalidated %d more times", len(h.keys))
	}
	if text := log.String(); strings.Count(text, "operator's token was wrong") != 1 || strings.Contains(text, testToken) || !strings.Contains(text, "event=operator_invalidated") {
		t.Errorf("log: %s", text)
	}
	if code, _ := send(a, http.MethodGet, "/invalidate", "Bearer "+testToken, ""); code != 405 {
		t.Errorf("GET: %d", code)
	}
	if code, body := send(b, http.MethodPost, "/invalidate", "Bearer "+testToken, good); code != 403 || !strings.Contains(body, "without an operator's token") {
		t.Errorf("without a token: %d %s", code, body)
	}

	code, body := send(a, http.MethodGet, "/key?namespace=product&key=k1", "Bearer "+testToken, "")
	var k KeyStats
	if err := json.Unmarshal([]byte(body), &k); err != nil || code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	if k.Owner != a.View().Owner("k1").Name || len(k.Successors) != 1 || len(k.Members) != 2 || len(k.Missing) != 0 ||
		!strings.Contains(string(k.Members[1].Copies), `"age_seconds": 2`) || k.Partition != a.View().Partition("k1") {
		t.Errorf("%s", body)
	}
	for target, want := range map[string]int{
		"/key?namespace=product&key=k":                                    401,
		"/key?namespace=product":                                          400,
		"/key?namespace=product&key=" + strings.Repeat("k", codec.MaxKey): 400,
		"/key?namespace=nope&key=k":                                       404,
		"/key?namespace=product&key=" + strings.Repeat("k", codec.MaxKey-9) + "&other=field": 200,
	} {
		token := "Bearer " + testToken
		if want == 401 {
			token = ""
		}
		if code, body := send(a, http.MethodGet, target, token, ""); code != want {
			t.Errorf("%.60s: %d %s", target, code, body)
		}
	}
	if ring.Hash("product") == ring.Hash("fixed") {
		t.Fatal("unlikely")
	}
}

func TestTokenChecked(t *testing.T) {
	for token, ok := range map[string]bool{
		"": true, "0123456789abcdef": true, "short": false, "with a space in it": false, "umlaut-ä-umlaut-ä": false, strings.Repeat("x", 513): false,
	} {
		_, err := Config{OperatorToken: token}.check()
		if (err == nil) != ok {
			t.Errorf("%.20q: %v", token, err)
		}
		if err != nil && token != "" && strings.Contains(err.Error(), token) {
			t.Errorf("the error tells the token: %v", err)
		}
	}
}
