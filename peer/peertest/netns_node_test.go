package peertest

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
	"time"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// A process that has nodeName in its environment is a node, and no test: it takes calls on its
// standard input and answers on its standard output.
const (
	nodeName   = "PEERTEST_NODE"
	nodeIP     = "PEERTEST_IP"
	nodeSecret = "PEERTEST_SECRET"
	nodeOrigin = "PEERTEST_ORIGIN" // the path of the origin's unix socket
	nodeWorld  = "PEERTEST_WORLD"  // a world, in JSON
	nodePort   = 7946
)

// world is what all processes of a lab have in common.
type world struct {
	Nodes     int
	Freshness tier.Freshness // what their caches promise
}

// concurrency is the cap on loads at once: two for each node.
func (w world) concurrency() int { return 2 * w.Nodes }

// shortLived is a contract under which copies expire all the time.
func shortLived() tier.Freshness {
	return tier.Freshness{TTL: 2 * time.Second, StaleWhileRevalidate: 3 * time.Second, StaleIfError: 6 * time.Second, NearTTL: 500 * time.Millisecond}
}

func addressOf(i int) string { return fmt.Sprintf("10.99.0.%d", i+1) }

// nodeMain is the whole life of a node in a process of its own. It returns the exit status.
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
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	n, err := peer.Start(ctx, peer.Config{
		Name: name, Bind: fmt.Sprintf("%s:%d", ip, nodePort), Join: seeds, Secret: secret, MinMembers: w.Nodes,
		RejoinInterval: 2 * time.Second, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	if err := origin.Call("Origin.Started", struct{}{}, &struct{}{}); err != nil {
		return errors.Join(err, n.Close())
	}
	cache, err := tier.New(tier.Config[Value]{
		Cluster: n, Namespace: "netns", Loader: remoteLoader(origin), Freshness: w.Freshness,
		Origin:    tier.Origin{Concurrency: w.concurrency(), Timeout: loadTimeout},
		NearBytes: 1 << 20, OwnedBytes: 1 << 20, InvalidateTimeout: 2 * time.Second,
	})
	if err != nil {
		return errors.Join(err, n.Close())
	}
	s := rpc.NewServer()
	if err := s.RegisterName("Node", &nodeCalls{n, cache}); err != nil {
		return err
	}
	s.ServeConn(standard{os.Stdin, os.Stdout}) // until the parent closes it, or is gone
	return errors.Join(closeCache(cache), n.Close())
}

// remoteLoader asks the origin in the parent.
func remoteLoader(origin *rpc.Client) tier.Loader[Value] {
	return func(ctx context.Context, fill *tier.Fill[Value]) (Value, error) {
		var v Value
		call := origin.Go("Origin.Load", fill.Key, &v, make(chan *rpc.Call, 1))
		select {
		case <-call.Done:
			return v, call.Error
		case <-ctx.Done():
			return Value{}, ctx.Err()
		}
	}
}

// standard is standard input and output as one connection.
type standard struct {
	io.Reader
	io.WriteCloser
}

// ReadCall is a read for a node to make.
type ReadCall struct {
	Key             string
	MaxAge, Timeout time.Duration
}

// ReadReply is how the read ended.
type ReadReply struct {
	Value  Value
	Age    time.Duration
	Source tier.Source
	Failed string // the error, if any
}

// InvalidateReply is how an invalidation ended.
type InvalidateReply struct {
	Before, After []string // the members in the node's view
	Unreached     []string // whom the error names
	Failed        string
}

// StatusReply is what a node says of itself.
type StatusReply struct {
	Members     []string
	Fingerprint uint64
	Busy        int // flights and loads
	// Replayed are the invalidations that its exchanges have brought to others, Flushed is how often it took all for invalidated.
	Replayed, Flushed int64
}

// nodeCalls are the calls that a node's process takes.
type nodeCalls struct {
	node  *peer.Node
	cache *tier.Cache[Value]
}

func (n *nodeCalls) members() (names []string) {
	for _, m := range n.node.View().Members() {
		names = append(names, m.Name)
	}
	return names
}

func (n *nodeCalls) Read(c ReadCall, r *ReadReply) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	a, err := n.cache.Read(ctx, c.Key, tier.ReadOptions{MaxAge: c.MaxAge})
	r.Value, r.Age, r.Source, r.Failed = a.Value, a.Age, a.Source, text(err)
	return nil
}

func (n *nodeCalls) Invalidate(key string, r *InvalidateReply) error {
	r.Before = n.members()
	err := n.cache.Invalidate(context.Background(), key)
	var failed *tier.InvalidateError
	if errors.As(err, &failed) {
		r.Unreached = failed.Unreached
	}
	r.Failed = text(err)
	r.After = n.members()
	return nil
}

func (n *nodeCalls) Status(_ struct{}, r *StatusReply) error {
	s := n.cache.Stats()
	r.Members, r.Fingerprint, r.Busy = n.members(), n.node.View().Fingerprint(), int(s.Flights)+int(s.Running)
	r.Replayed, r.Flushed = s.Replayed, s.Flushed
	return nil
}

// Dial reports whether a connection to addr comes about.
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
