//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/peer/peertest"
	"github.com/weircache/weir/tier"
)

// A process that has nodeName in its environment is a node. It receives calls on its standard input and answers on its
// standard output.
const (
	nodeName   = "CHAOS_NODE"
	nodeIP     = "CHAOS_IP"
	nodeSecret = "CHAOS_SECRET"
	nodeOrigin = "CHAOS_ORIGIN" // the path of the origin's unix socket
	nodeWorld  = "CHAOS_WORLD"  // a world, in JSON
	nodePort   = 7946
)

// namespace is the name of all caches.
const namespace = "chaos"

// world is the configuration that all processes of a lab share.
type world struct {
	Nodes      int
	MinMembers int            // as peer.Config has it
	Freshness  tier.Freshness // the contract of their caches
	Cap        int            // on concurrent loads
	Timeout    time.Duration  // of a load
	Sabotage   string         // what the nodes intentionally do wrong: see sabotages
}

func addressOf(i int) string { return fmt.Sprintf("10.99.0.%d", i+1) }

// nodeMain runs a node in its own process, from start to end. It returns the exit status.
func nodeMain() int {
	if err := runNode(os.Getenv(nodeName), os.Getenv(nodeIP)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runNode(name, ip string) error {
	secret, err := peer.ParseSecret(os.Getenv(nodeSecret))
	if err != nil {
		return err
	}
	var w world
	if err := json.Unmarshal([]byte(os.Getenv(nodeWorld)), &w); err != nil {
		return err
	}
	origin, err := rpc.Dial("unix", os.Getenv(nodeOrigin))
	if err != nil {
		return err
	}
	defer origin.Close()
	var seeds []string
	for i := range w.Nodes {
		seeds = append(seeds, fmt.Sprintf("%s:%d", addressOf(i), nodePort))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n, err := peer.Start(ctx, peer.Config{
		Name: name, Bind: fmt.Sprintf("%s:%d", ip, nodePort), Join: seeds, Secret: secret, MinMembers: w.MinMembers,
		RejoinInterval: 2 * time.Second, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)), Gossip: peer.Gossip{HoldDown: 3 * time.Second},
	})
	if err != nil {
		return err
	}
	if err := origin.Call("Origin.Started", struct{}{}, &struct{}{}); err != nil {
		return errors.Join(err, n.Close())
	}
	cache, err := tier.New(tier.Config[peertest.Value]{
		Cluster: sabotages[w.Sabotage](n), Namespace: namespace, Loader: remoteLoader(origin), Freshness: w.Freshness,
		Origin:    tier.Origin{Concurrency: w.Cap, Timeout: w.Timeout},
		NearBytes: 1 << 20, OwnedBytes: 1 << 20, InvalidateTimeout: 2 * time.Second,
	})
	if err != nil {
		return errors.Join(err, n.Close())
	}
	s := rpc.NewServer()
	if err := s.RegisterName("Node", &nodeCalls{n, cache}); err != nil {
		return err
	}
	s.ServeConn(standard{os.Stdin, os.Stdout}) // until the parent closes it or is gone
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(cache.Close(ctx), n.Close())
}

// remoteLoader returns a loader that asks the origin in the parent, and returns once the load has ended there.
func remoteLoader(origin *rpc.Client) tier.Loader[peertest.Value] {
	var last atomic.Uint64
	return func(ctx context.Context, fill *tier.Fill[peertest.Value]) (peertest.Value, error) {
		fill.Tag(peertest.TagOf(fill.Key))
		c := LoadCall{ID: last.Add(1), Key: fill.Key}
		if until, ok := ctx.Deadline(); ok {
			c.Until = until.UnixNano()
		}
		var r LoadReply
		call := origin.Go("Origin.Load", c, &r, make(chan *rpc.Call, 1))
		select {
		case <-call.Done:
		case <-ctx.Done():
			origin.Go("Origin.Cancel", c.ID, &struct{}{}, make(chan *rpc.Call, 1))
			<-call.Done
		}
		switch {
		case call.Error != nil:
			return peertest.Value{}, call.Error
		case r.Crashed:
			panic("the loader panics")
		case r.Missing:
			return peertest.Value{}, tier.ErrNotFound
		case r.Failed != "":
			return peertest.Value{}, errors.New(r.Failed)
		}
		return r.Value, nil
	}
}

// standard is standard input and output as one connection.
type standard struct {
	io.Reader
	io.WriteCloser
}

// nodeCalls are the RPC methods of a node's process.
type nodeCalls struct {
	node  *peer.Node
	cache *tier.Cache[peertest.Value]
}

func (n *nodeCalls) members() (names []string) {
	for _, m := range n.node.View().Members() {
		names = append(names, m.Name)
	}
	return names
}

// ReadCall is a read for a node to make.
type ReadCall struct {
	Key             string
	Plain           bool // a Get
	MaxAge, Timeout time.Duration
	After           string // a tier.Token, as text
}

// ReadReply is how the read ended.
type ReadReply struct {
	Value  peertest.Value
	Age    time.Duration
	Source tier.Source
	Failed Failure
}

// Read makes a read.
func (n *nodeCalls) Read(c ReadCall, r *ReadReply) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	var a tier.Answer[peertest.Value]
	var token tier.Token
	if c.After != "" {
		if err := token.UnmarshalText([]byte(c.After)); err != nil {
			return err
		}
	}
	var err error
	if c.Plain {
		a.Value, err = n.cache.Get(ctx, c.Key)
	} else {
		a, err = n.cache.Read(ctx, c.Key, tier.ReadOptions{MaxAge: c.MaxAge, After: token})
	}
	r.Value, r.Age, r.Source, r.Failed = a.Value, a.Age, a.Source, failureOf(err)
	return nil
}

// ApplyCall is a change for a node to apply or, with Put, a value to put.
type ApplyCall struct {
	Change tier.Change
	Put    *peertest.Value
}

// ApplyReply is the result of an ApplyCall.
type ApplyReply struct {
	Before, After []string // the members in the node's view
	Token         string   // a tier.Token, as text
	Failed        Failure
}

// Apply applies a change, or puts a value.
func (n *nodeCalls) Apply(c ApplyCall, r *ApplyReply) (err error) {
	r.Before = n.members()
	if v := c.Put; v != nil {
		err = n.cache.Put(context.Background(), v.Key, *v, tier.PutOptions{Version: v.Version, Tags: []string{peertest.TagOf(v.Key)}})
	} else {
		var token tier.Token
		token, err = n.cache.Apply(context.Background(), c.Change)
		r.Token = token.String()
	}
	r.Failed = failureOf(err)
	r.After = n.members()
	return nil
}

// Leave lets the node leave.
func (n *nodeCalls) Leave(limit time.Duration, _ *struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_ = n.node.Leave(ctx) // a node that is cut off cannot say goodbye
	return nil
}

// StatusCall asks a node for its status.
type StatusCall struct{ Heap bool }

// StatusReply is the status of a node.
type StatusReply struct {
	Members     []string
	Resting     []string
	Fingerprint uint64
	Busy        int // flights and loads
	Divisor     int // the number of members by which it divides the cap
	Unready     string
	Goroutines  int
	Heap        uint64 // bytes in use after a collection, if requested
	// Replayed is how many invalidations its exchanges have brought to others. Flushed is how often it invalidated
	// everything.
	Replayed, Flushed int64
}

// Status returns the node's status.
func (n *nodeCalls) Status(c StatusCall, r *StatusReply) error {
	s, v := n.cache.Stats(), n.node.View()
	for _, m := range v.Members() {
		r.Members = append(r.Members, m.Name)
		if m.Resting {
			r.Resting = append(r.Resting, m.Name)
		}
	}
	r.Fingerprint, r.Busy = v.Fingerprint(), s.Flights+s.Running
	r.Divisor, _ = n.node.Divisor()
	r.Unready = text(n.node.Ready())
	r.Replayed, r.Flushed = s.Replayed, s.Flushed
	r.Goroutines = runtime.NumGoroutine()
	if c.Heap {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		r.Heap = m.HeapAlloc
	}
	return nil
}

// Dial reports whether a connection to addr can be established.
func (n *nodeCalls) Dial(addr string, open *bool) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		*open = true
		return c.Close()
	}
	return nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
