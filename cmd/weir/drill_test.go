package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/weircache/weir/peer"
)

// TestInterruptedWhileADrillBegins checks that an interrupt during the request that starts a drill also ends the drill:
// the member may have started it before the answer arrives.
func TestInterruptedWhileADrillBegins(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	stops := make(chan peer.DrillRequest, 1)
	member := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_ = json.NewEncoder(w).Encode(map[string]any{"schema": peer.StatsSchema, "by": "n1", "members": []any{}})
			return
		}
		var req peer.DrillRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		if req.Stop {
			stops <- req
		} else {
			close(began)
			<-release
		}
		w.WriteHeader(http.StatusAccepted)
		_ = json.NewEncoder(w).Encode(peer.DrillResult{Members: []string{"n1"}})
	}))
	defer member.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	ended := make(chan int)
	go func() {
		ended <- run(ctx, []string{"drill", "-n", "product", "--for=1h", "--addr=" + member.URL}, &world{out: &out, err: &errs})
	}()
	<-began
	interrupt()
	close(release)
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	select {
	case req := <-stops:
		if req.Namespace != "product" {
			t.Errorf("it stops a drill of %q", req.Namespace)
		}
	default:
		t.Error("the drill goes on")
	}
}

// TestUnansweredDrillMayRun checks that the command says how to end a drill whose start was not answered.
func TestUnansweredDrillMayRun(t *testing.T) {
	member := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer member.Close()
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"drill", "-n", "product"}, "weir drill --namespace product --stop ends it"},
		{[]string{"drill", "-n", "product", "--cluster"}, "weir drill --namespace product --cluster --stop ends it"},
		{[]string{"drill", "-n", "product", "--stop"}, ""},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append(c.args, "--addr="+member.URL), &world{out: &out, err: &errs})
		if says := strings.Contains(errs.String(), "ends it"); code != exitTarget || says != (c.says != "") || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%q: exit code %d: %s", c.args, code, errs.String())
		}
	}
}
