package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/weircache/weir/bench/scenario"
	"github.com/weircache/weir/tier"
)

// ErrCannot is returned by a system for a step that it does not support. Its result says so, and the run goes on.
var ErrCannot = errors.New("cannot")

// A System is a cache that can be measured: weir, or a rival behind an adapter.
type System interface {
	// Name is the system's name in tables.
	Name() string
	// Setup describes in one line how it is set up: its version and its best configuration.
	Setup() string
	// Limits lists what the system lacks of the things that a scenario may ask for. The list appears below the
	// table.
	Limits() []string
	// Start starts as many nodes as the scenario says. ctx bounds Start only.
	Start(ctx context.Context, env Env) (Cluster, error)
}

// Env is the input of a system: the contract and the origin.
type Env struct {
	Scenario *scenario.Scenario
	// Load reads the origin. It is safe for concurrent use; the value is the caller's.
	Load func(ctx context.Context, key string) ([]byte, error)

	current func(key string) []byte // the current value's header, without a load
}

// A Cluster is a running system. All methods are safe for concurrent use; nodes are numbered from 0. A method that
// is called for a node that is down may do anything, as long as it returns.
type Cluster interface {
	// Get reads a key as a caller on the node.
	Get(ctx context.Context, node int, key string) ([]byte, error)
	// Invalidate makes all copies of a key unusable, as far as the system can.
	Invalidate(ctx context.Context, node int, key string) error
	// Fault executes one step of a scenario's faults, or wraps ErrCannot.
	Fault(ctx context.Context, s Step) error
	// Close ends all nodes.
	Close(ctx context.Context) error
}

// A Counter is a Cluster with its own counters, which the result keeps.
type Counter interface {
	Counters() map[string]float64
}

// Counters that reports show below the table: what the caches of all nodes hold, in bytes, as the system counts
// them against its limit; and what it allocated for that, if it reports it.
const (
	HeldBytes      = "held_bytes"
	AllocatedBytes = "allocated_bytes"
)

// A viewer is a Cluster whose nodes report which nodes they see, including themselves. Nodes of other clusters are
// assumed to always see all nodes: a confirmed invalidation then counts for every node.
type viewer interface {
	sees(node int) nodeSet
}

// A Step is a single action of a fault.
type Step struct {
	Do    StepKind
	Node  int
	Nodes []int // Cut: one side
	// Unnoticed: of a kill, callers are sent to the dead node until StepNotice.
	Unnoticed bool
	For       time.Duration // Stall
}

// StepKind is the kind of a step.
type StepKind string

// The steps.
const (
	StepKill   StepKind = "kill"
	StepLeave  StepKind = "leave"
	StepJoin   StepKind = "join"
	StepCut    StepKind = "cut"
	StepHeal   StepKind = "heal"
	StepStarve StepKind = "starve"
	StepFeed   StepKind = "feed" // ends a starvation
	StepFlush  StepKind = "flush"
	StepStall  StepKind = "stall"  // the whole machine stands still; no Cluster sees this step
	StepNotice StepKind = "notice" // the load balancer learns that the node is dead; no Cluster sees this step
)

// String returns "kill node 1", "cut nodes [2]" or "heal".
func (s Step) String() string {
	switch s.Do {
	case StepCut:
		return fmt.Sprintf("cut nodes %v", s.Nodes)
	case StepHeal, StepFlush:
		return string(s.Do)
	case StepStall:
		return fmt.Sprintf("stall for %v", s.For)
	}
	return fmt.Sprintf("%s node %d", s.Do, s.Node)
}

// freshness returns the scenario's contract in weir's form.
func freshness(f scenario.Freshness) tier.Freshness {
	return tier.Freshness{
		TTL: f.TTL.D(), StaleWhileRevalidate: f.StaleWhileRevalidate.D(), StaleIfError: f.StaleIfError.D(),
		NegativeTTL: f.NegativeTTL.D(), ErrorTTL: f.ErrorTTL.D(), NearTTL: f.NearTTL.D(),
		Jitter: f.Jitter, RefreshAhead: f.RefreshAhead,
	}
}

// kindOf classifies errors into a few kinds, for the result.
func kindOf(err error) string {
	for _, k := range []struct {
		err  error
		name string
	}{
		{tier.ErrOverloaded, "overloaded"}, {ErrOrigin, "origin fails"}, {ErrRefused, "origin refuses"},
		{tier.ErrTimeout, "load timed out"}, {context.DeadlineExceeded, "timed out"}, {context.Canceled, "cancelled"},
		{tier.ErrClosed, "closed"}, {errNotBegun, "never begun"}, {errOver, "not answered by the end"}, {errNoNode, "no node up"},
		{syscall.ECONNREFUSED, "connection refused"}, {syscall.ECONNRESET, "connection lost"}, {syscall.EPIPE, "connection lost"},
		{io.EOF, "connection lost"}, {io.ErrUnexpectedEOF, "connection lost"},
	} {
		if errors.Is(err, k.err) {
			return k.name
		}
	}
	if errors.As(err, new(*tier.InvalidateError)) {
		return "invalidation not confirmed by all"
	}
	if errors.As(err, new(*tier.FillError)) {
		return "fill failed" // on another member: the error has lost its identity in transit
	}
	if u := (*url.Error)(nil); errors.As(err, &u) { // without the address, which contains the key
		err = u.Err
	}
	text := err.Error()
	if strings.Contains(text, context.DeadlineExceeded.Error()) {
		return "timed out" // an error that lost its identity between two processes or nodes
	}
	if len(text) > 60 {
		text = text[:60]
	}
	return text
}
