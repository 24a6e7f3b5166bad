package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"syscall"

	"github.com/weircache/weir/bench/scenario"
	"github.com/weircache/weir/tier"
)

// ErrCannot is what a system returns that has no answer to a demand: its result says so, and
// the run goes on.
var ErrCannot = errors.New("cannot")

// A System is a cache that can be measured: weir, or a rival behind an adapter.
type System interface {
	// Name is how tables call it.
	Name() string
	// Setup says in a line how it is set up: its version, and its best configuration.
	Setup() string
	// Limits names what the system lacks of what any scenario may ask for. It
	// appears below the table.
	Limits() []string
	// Start starts it with as many nodes as the scenario says. ctx bounds Start only.
	Start(ctx context.Context, env Env) (Cluster, error)
}

// Env is what a system gets: the contract, and the origin.
type Env struct {
	Scenario *scenario.Scenario
	// Load reads the origin. It is safe for concurrent use; the value is the caller's.
	Load func(ctx context.Context, key string) ([]byte, error)
}

// A Cluster is a system that runs. All methods are safe for concurrent use; nodes count from
// 0. What a method does to a node that is down does not matter, as long as it returns.
type Cluster interface {
	// Get reads a key as a caller on the node.
	Get(ctx context.Context, node int, key string) ([]byte, error)
	// Invalidate makes all copies of a key unusable, as far as the system can.
	Invalidate(ctx context.Context, node int, key string) error
	// Fault does one step of a scenario's faults, or wraps ErrCannot.
	Fault(ctx context.Context, s Step) error
	// Close ends all nodes.
	Close(ctx context.Context) error
}

// A Counter is a Cluster with counters of its own, which the result keeps.
type Counter interface {
	Counters() map[string]float64
}

// Counters that reports show beside the table: what all nodes' caches hold, in bytes, as the system counts them
// towards its limit; and what it allocated for that, if it says so.
const (
	HeldBytes      = "held_bytes"
	AllocatedBytes = "allocated_bytes"
)

// A viewer is a Cluster whose nodes tell which nodes they see, themselves included. The others are taken to see
// all, always: what their invalidations confirm is held against every node.
type viewer interface {
	sees(node int) nodeSet
}

// A Step is a single act of a fault.
type Step struct {
	Do    StepKind
	Node  int
	Nodes []int // Cut: one side
}

// StepKind says what a step does.
type StepKind string

// The steps.
const (
	StepKill   StepKind = "kill"
	StepLeave  StepKind = "leave"
	StepJoin   StepKind = "join"
	StepCut    StepKind = "cut"
	StepHeal   StepKind = "heal"
	StepPause  StepKind = "pause"
	StepResume StepKind = "resume"
	StepStarve StepKind = "starve"
	StepFeed   StepKind = "feed" // what starve began is over
	StepFlush  StepKind = "flush"
)

// String is "kill node 1", "cut nodes [2]" or "heal".
func (s Step) String() string {
	switch s.Do {
	case StepCut:
		return fmt.Sprintf("cut nodes %v", s.Nodes)
	case StepHeal, StepFlush:
		return string(s.Do)
	}
	return fmt.Sprintf("%s node %d", s.Do, s.Node)
}

// Freshness is the scenario's contract as weir takes it.
func Freshness(f scenario.Freshness) tier.Freshness {
	return tier.Freshness{
		TTL: f.TTL.D(), StaleWhileRevalidate: f.StaleWhileRevalidate.D(), StaleIfError: f.StaleIfError.D(),
		NegativeTTL: f.NegativeTTL.D(), ErrorTTL: f.ErrorTTL.D(), NearTTL: f.NearTTL.D(),
		Jitter: f.Jitter, RefreshAhead: f.RefreshAhead,
	}
}

// kindOf sorts errors into few kinds, for the result.
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
		return "fill failed" // on another member: its error has lost its identity on the way
	}
	if u := (*url.Error)(nil); errors.As(err, &u) { // without the address, which has the key
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
