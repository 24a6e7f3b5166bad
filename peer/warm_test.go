package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/internal/testlog"
)

// warms is a namespace whose Warm fails for keys that begin with an x.
type warms struct {
	saying
	err  error
	keys chan []string
}

func (h warms) WarmFor(ctx context.Context, keys []string) (present, loaded, notFound int, failed map[string]error, err error) {
	if h.err != nil {
		return 0, 0, 0, nil, h.err
	}
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > warmTime {
		return 0, 0, 0, nil, errors.New("no deadline")
	}
	h.keys <- keys
	failed = make(map[string]error)
	for i, key := range keys {
		switch {
		case key[0] == 'x':
			failed[key] = errors.New("no permits")
		case i == 0:
			present++
		default:
			loaded++
		}
	}
	return present, loaded, 0, failed, nil
}

func TestOperatorWarms(t *testing.T) {
	log := &testlog.Log{}
	cfg := quick("a")
	cfg.OperatorToken, cfg.Logger = testToken, log.Logger()
	a := start(t, cfg)
	h := warms{keys: make(chan []string, 9)}
	register(t, a, "product", h)
	register(t, a, "fixed", saying{})
	register(t, a, "closed", warms{err: errors.New("weir: closed")})
	bearer := "Bearer " + testToken
	for _, c := range []struct {
		token, body string
		code        int
		says        string
	}{
		{"", `{"namespace":"product","keys":["k"]}`, 401, "operator's token"},
		{bearer, `{"namespace":"product","keys":["k1","k2","k3"]}`, 200, `"loaded": 2`},
		{bearer, `{"namespace":"product"}`, 400, "nothing to warm"},
		{bearer, `{"namespace":"product","keys":["k"],"tags":["t"]}`, 400, "tags"},
		{bearer, `{"namespace":"nope","keys":["k"]}`, 404, "no namespace"},
		{bearer, `{"namespace":"fixed","keys":["k"]}`, 501, "cannot be warmed"},
		{bearer, `{"namespace":"closed","keys":["k"]}`, 503, "weir: closed"},
		{bearer, `{"namespace":"` + strings.Repeat("x", maxOperatorBody), 413, "longer than"},
	} {
		if code, body := send(a, http.MethodPost, "/weir/warm", c.token, c.body); code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%.40s: %d %s", c.body, code, body)
		}
	}
	if got := fmt.Sprint(<-h.keys); got != "[k1 k2 k3]" || len(h.keys) > 0 {
		t.Errorf("warmed %s, and %d more times", got, len(h.keys))
	}
	if code, _ := send(a, http.MethodGet, "/warm", bearer, ""); code != 405 {
		t.Errorf("GET: %d", code)
	}
	keys := []string{"k"}
	for i := range 30 {
		keys = append(keys, fmt.Sprintf("x%02d", 29-i))
	}
	req, err := json.Marshal(WarmRequest{Namespace: "product", Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	code, body := send(a, http.MethodPost, "/warm", bearer, string(req))
	var r WarmResult
	if err := json.Unmarshal([]byte(body), &r); err != nil || code != 502 {
		t.Fatalf("%d %s", code, body)
	}
	if r.Keys != 31 || r.Present != 1 || r.Failed != 30 || len(r.Failures) != warmFailures || r.Failures[0] != (WarmFailure{"x00", "no permits"}) {
		t.Errorf("%+v", r)
	}
	if text := log.String(); strings.Count(text, "event=operator_warmed") != 2 || strings.Contains(text, testToken) {
		t.Errorf("log: %s", text)
	}
}
