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

// drilled is a namespace whose drills last until they are stopped.
type drilled struct {
	told
	begun chan string
	ended chan string
	err   error
}

func newDrilled() drilled {
	return drilled{told: telling(1), begun: make(chan string, 8), ended: make(chan string, 8)}
}

func (h drilled) BeginDrill(fraction float64, d time.Duration) (func(context.Context), error) {
	if h.err != nil {
		return nil, h.err
	}
	what := fmt.Sprint(fraction, d)
	h.begun <- what
	return func(ctx context.Context) {
		<-ctx.Done()
		h.ended <- what
	}, nil
}

// TestDrill checks that an operator can start drills on one member or on all, and stop them, and learns which members do
// not take part.
func TestDrill(t *testing.T) {
	log := &testlog.Log{}
	cfg := quick("a")
	cfg.OperatorToken, cfg.Logger = testToken, log.Logger()
	a := start(t, cfg)
	b := start(t, quick("b", a.Addr()))
	c := start(t, quick("c", a.Addr()))
	awaitNames(t, "a b c", a, b, c)
	ha, hb := newDrilled(), newDrilled()
	busy := newDrilled()
	busy.err = errors.New("a drill is under way")
	register(t, a, "product", ha)
	register(t, b, "product", hb)
	register(t, c, "product", telling(1))
	register(t, a, "busy", busy)
	order := func(body string, code int, says ...string) DrillResult {
		t.Helper()
		got, text := send(a, http.MethodPost, "/weir/drill", "Bearer "+testToken, body)
		var out DrillResult
		if err := json.Unmarshal([]byte(text), &out); err != nil || got != code {
			t.Errorf("%.80s: %d %s", body, got, text)
		}
		for _, s := range says {
			if !strings.Contains(text, s) {
				t.Errorf("%.80s: %s, without %q", body, text, s)
			}
		}
		return out
	}
	for body, says := range map[string]string{
		`{"namespace":"product","fraction":0,"seconds":1}`:    "fraction is 0",
		`{"namespace":"product","fraction":1.5,"seconds":1}`:  "fraction is 1.5",
		`{"namespace":"product","fraction":1,"seconds":0}`:    "seconds is 0",
		`{"namespace":"product","fraction":1,"seconds":3601}`: "at most 3600",
		`{"namespace":"product","fraction":"x"}`:              "the body is not",
	} {
		order(body, http.StatusBadRequest, says)
	}
	order(`{"namespace":"nope","fraction":1,"seconds":1}`, http.StatusNotFound, "no namespace")
	order(`{"namespace":"busy","fraction":1,"seconds":1}`, http.StatusConflict, "a: a drill is under way")
	order(`{"namespace":"product","stop":true}`, http.StatusConflict, "no operator's drill")
	if code, body := send(a, http.MethodPost, "/drill", "", `{}`); code != 401 || !strings.Contains(body, `"error"`) {
		t.Errorf("without a token: %d %s", code, body)
	}

	if out := order(`{"namespace":"product","fraction":0.5,"seconds":60}`, http.StatusAccepted); fmt.Sprint(out.Members) != "[a]" || len(out.Missing) != 0 {
		t.Errorf("%+v", out)
	}
	if got := <-ha.begun; got != "0.5 1m0s" || len(hb.begun) != 0 {
		t.Errorf("%s, and %d on b", got, len(hb.begun))
	}
	order(`{"namespace":"product","stop":true}`, http.StatusAccepted)
	<-ha.ended
	out := order(`{"namespace":"product","fraction":0.25,"seconds":2,"cluster":true}`, http.StatusAccepted)
	if fmt.Sprint(out.Members) != "[a b]" || len(out.Missing) != 1 || out.Missing[0].Name != "c" || !strings.Contains(out.Missing[0].Reason, "no namespace") {
		t.Errorf("%+v", out)
	}
	<-ha.begun
	if got := <-hb.begun; got != "0.25 2s" {
		t.Error(got)
	}
	order(`{"namespace":"product","stop":true,"cluster":true}`, http.StatusAccepted)
	<-ha.ended
	<-hb.ended
	if text := log.String(); !strings.Contains(text, "event=operator_drill_begun") || !strings.Contains(text, "event=operator_drill_stopped") {
		t.Errorf("log: %s", text)
	}

	order(`{"namespace":"product","fraction":1,"seconds":60}`, http.StatusAccepted)
	_ = a.Close() // ends the drill and waits for it
	<-ha.ended
	if err := (endpoint{a}).drill(DrillRequest{Namespace: "product", Fraction: 1, Seconds: 1}); err == nil {
		t.Error("a closed node begins a drill")
	}
	for _, question := range []string{"", "x", "{}", `{"namespace":"product","fraction":2,"seconds":1}`} {
		if err := (endpoint{b}).obey([]byte(question)); err == nil {
			t.Errorf("%q is obeyed", question)
		}
	}
}
