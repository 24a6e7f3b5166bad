package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/weircache/weir/codec"
)

// maxDrill is the longest drill that an operator can start.
const maxDrill = time.Hour

// DrillRequest is the JSON body of POST /drill. A drill rehearses losing a namespace's cache.
type DrillRequest struct {
	Namespace string  `json:"namespace"`
	Fraction  float64 `json:"fraction"` // of the reads that find a copy; this part behaves as misses
	Seconds   float64 `json:"seconds"`  // for how long, 3600 at most
	Cluster   bool    `json:"cluster"`  // drill the reads on every member, not on this one alone
	Stop      bool    `json:"stop"`     // end the drill instead of starting one
}

// DrillResult is the answer to a DrillRequest, with status 202: the drill has started, or has been stopped, on some
// members. The namespace's statistics show its effect.
type DrillResult struct {
	Members []string        `json:"members"` // where
	Missing []MissingMember `json:"missing"` // where not, with the reason
}

// driller is a namespace in which an operator can start a drill.
type driller interface {
	// BeginDrill starts a drill. The caller must call run, which supervises the drill until it or ctx ends.
	BeginDrill(fraction float64, duration time.Duration) (run func(ctx context.Context), err error)
}

// drillRun is a drill that an operator has started on this node.
type drillRun struct{ stop context.CancelFunc }

func (r *DrillRequest) check() error {
	switch {
	case r.Stop:
		return nil
	case !(r.Fraction > 0 && r.Fraction <= 1):
		return fmt.Errorf("fraction is %v: it must be above 0 and at most 1", r.Fraction)
	case !(r.Seconds > 0 && r.Seconds <= maxDrill.Seconds()):
		return fmt.Errorf("seconds is %v: it must be above 0 and at most %v", r.Seconds, maxDrill.Seconds())
	}
	return nil
}

func (e endpoint) serveDrill(w http.ResponseWriter, r *http.Request) {
	var req DrillRequest
	if !e.requireOperator(w, r) || !e.readOrder(w, r, &req, `{"namespace": "...", "fraction": 0.05, "seconds": 60}`) {
		return
	}
	if err := req.check(); err != nil {
		e.refuse(w, http.StatusBadRequest, "%v", err)
		return
	}
	if !e.requireNamespace(w, req.Namespace) {
		return
	}
	question, err := json.Marshal(req)
	if err != nil || 1+len(question) > codec.MaxKey {
		e.refuse(w, http.StatusBadRequest, "the namespace's name is too long")
		return
	}
	out := DrillResult{Members: []string{}, Missing: []MissingMember{}}
	if req.Cluster {
		ctx, cancel := context.WithTimeout(r.Context(), clusterTimeout)
		defer cancel()
		docs, missing := e.askAll(ctx, append([]byte{askDrill}, question...), func() ([]byte, error) { return nil, e.drill(req) })
		for _, d := range docs {
			out.Members = append(out.Members, d.Name)
		}
		out.Missing = append(out.Missing, missing...)
	} else if err := e.drill(req); err != nil {
		out.Missing = append(out.Missing, MissingMember{Name: e.n.id.Name, Addr: e.n.Addr(), State: StateAlive, Reason: err.Error()})
	} else {
		out.Members = append(out.Members, e.n.id.Name)
	}
	if len(out.Members) == 0 {
		var why []string
		for _, m := range out.Missing {
			why = append(why, m.Name+": "+m.Reason)
		}
		e.refuse(w, http.StatusConflict, "%s", strings.Join(why, "; "))
		return
	}
	if req.Stop {
		e.n.logger.Info("an operator has stopped a drill", "namespace", req.Namespace, "members", len(out.Members))
	} else {
		e.n.logger.Info("an operator has begun a drill", "namespace", req.Namespace, "fraction", req.Fraction, "seconds", req.Seconds, "members", len(out.Members))
	}
	e.serveJSON(w, http.StatusAccepted, out, nil)
}

// drill starts or stops a drill on this node.
func (e endpoint) drill(req DrillRequest) error {
	if req.Stop {
		e.n.eyes.mu.Lock()
		d := e.n.eyes.drills[req.Namespace]
		e.n.eyes.mu.Unlock()
		if d == nil {
			return errors.New("no operator's drill is running")
		}
		d.stop()
		return nil
	}
	space, ok := e.n.spaces.all()[req.Namespace].(driller)
	if !ok {
		return fmt.Errorf("there is no namespace %.130q that can have a drill", req.Namespace)
	}
	run, err := space.BeginDrill(req.Fraction, time.Duration(req.Seconds*float64(time.Second)))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(e.n.ctx)
	d := &drillRun{cancel}
	e.n.eyes.mu.Lock()
	if e.n.eyes.drills == nil {
		e.n.eyes.drills = make(map[string]*drillRun)
	}
	e.n.eyes.drills[req.Namespace] = d
	e.n.eyes.mu.Unlock()
	look := func() {
		defer cancel()
		run(ctx)
		e.n.eyes.mu.Lock()
		defer e.n.eyes.mu.Unlock()
		if e.n.eyes.drills[req.Namespace] == d { // unless the next drill has replaced it
			delete(e.n.eyes.drills, req.Namespace)
		}
	}
	if !e.n.start(look) {
		cancel()
		look()
		return ErrClosed
	}
	return nil
}

// obey carries out an operator's order that another member has relayed.
func (e endpoint) obey(question []byte) error {
	var req DrillRequest
	if err := json.Unmarshal(slices.Clone(question), &req); err != nil {
		return errors.New("the relayed order is not valid JSON")
	}
	if err := req.check(); err != nil {
		return err
	}
	return e.drill(req)
}
