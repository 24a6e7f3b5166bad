package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/bench/harness"
)

// errDown is the error of a node that is down.
var errDown = errors.New("the node is down")

// store is the cache of one node, or its client of a server that all nodes use.
type store interface {
	get(ctx context.Context, key string) ([]byte, error)
	// drop makes the copies of a key unusable, as far as the store can.
	drop(ctx context.Context, key string) error
	clear()
	close()
	held() int64 // bytes on the node, by its own count
}

// batchStore is a store whose client reads several keys in one call. It returns the fresh values by key.
type batchStore interface {
	getMany(ctx context.Context, keys []string) (map[string][]byte, error)
}

// backend is a server that the stores of all nodes use.
type backend interface {
	health() error
	flush(ctx context.Context) error
	held(ctx context.Context) (int64, error)
	stop()
	Pid() int // of its process
}

// client is the part of a store that holds nothing on its node.
type client struct{}

func (client) clear()      {}
func (client) held() int64 { return 0 }

// locals are nodes whose stores do not know each other. They may use one server.
type locals struct {
	make   func(node int) (store, error)
	server backend // nil: none
	nodes  []atomic.Pointer[store]

	mu   sync.Mutex // guards gone
	gone []store    // closed at the end, because calls may still use them
}

// noPeers lists what stores lack that do not communicate.
func noPeers() []string {
	return []string{"word of an invalidation to other nodes (their copies stay until they expire)", "shared load of a key between nodes",
		noLimit, "stale copy when the origin fails"}
}

// startLocals starts the nodes, which use the server unless it is nil. If it fails, it stops them and the server.
func startLocals(n int, server backend, build func(node int) (store, error)) (*locals, error) {
	l := &locals{make: build, server: server, nodes: make([]atomic.Pointer[store], n)}
	for i := range l.nodes {
		if err := l.join(i); err != nil {
			return nil, errors.Join(err, l.Close(context.Background()))
		}
	}
	return l, nil
}

func (l *locals) join(i int) error {
	s, err := l.make(i)
	if err == nil {
		l.nodes[i].Store(&s)
	}
	return err
}

func (l *locals) Get(ctx context.Context, node int, key string) ([]byte, error) {
	s := l.nodes[node].Load()
	if s == nil {
		return nil, errDown
	}
	return (*s).get(ctx, key)
}

// Many reads in one call what the client can read so, and each of the other keys with Get, all at once.
func (l *locals) Many(ctx context.Context, node int, keys []string) ([][]byte, error) {
	s := l.nodes[node].Load()
	if s == nil {
		return nil, errDown
	}
	var found map[string][]byte
	if b, ok := (*s).(batchStore); ok {
		var err error
		if found, err = b.getMany(ctx, keys); err != nil {
			return nil, err
		}
	}
	values, errs := make([][]byte, len(keys)), make([]error, len(keys))
	var wg sync.WaitGroup
	for i, key := range keys {
		if values[i] = found[key]; values[i] == nil {
			wg.Go(func() { values[i], errs[i] = (*s).get(ctx, key) })
		}
	}
	wg.Wait()
	return values, errors.Join(errs...)
}

func (l *locals) Invalidate(ctx context.Context, node int, key string) error {
	s := l.nodes[node].Load()
	if s == nil {
		return errDown
	}
	return (*s).drop(ctx, key)
}

func (l *locals) Fault(ctx context.Context, s harness.Step) error {
	switch s.Do {
	case harness.StepKill, harness.StepLeave:
		if s := l.nodes[s.Node].Swap(nil); s != nil {
			if l.server != nil {
				(*s).close() // as the connections of a process that ends
				return nil
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.gone = append(l.gone, *s)
		}
		return nil
	case harness.StepJoin:
		return l.join(s.Node)
	case harness.StepCut, harness.StepHeal:
		if l.server == nil {
			return nil // the nodes do not communicate anyway
		}
	case harness.StepFlush:
		for i := range l.nodes {
			if s := l.nodes[i].Load(); s != nil {
				(*s).clear()
			}
		}
		if l.server != nil {
			return l.server.flush(ctx)
		}
		return nil
	}
	return fmt.Errorf("%w %s", harness.ErrCannot, s)
}

// serverAnswers is how long a server may take to answer the harness itself.
const serverAnswers = 2 * time.Second

// Health reports whether the server is alive.
func (l *locals) Health() error {
	if l.server == nil {
		return nil
	}
	return l.server.health()
}

// Processes returns the ID of the server's process, which stalls with the machine.
func (l *locals) Processes() []int {
	if l.server == nil {
		return nil
	}
	return []int{l.server.Pid()}
}

// Counters returns what the running nodes and the server hold.
func (l *locals) Counters() map[string]float64 {
	sum := int64(0)
	for i := range l.nodes {
		if s := l.nodes[i].Load(); s != nil {
			sum += (*s).held()
		}
	}
	if l.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), serverAnswers)
		defer cancel()
		n, err := l.server.held(ctx)
		if err != nil {
			return nil // then the report omits it
		}
		sum += n
	}
	return map[string]float64{harness.HeldBytes: float64(sum)}
}

// Close ends the nodes, and then the server.
func (l *locals) Close(context.Context) error {
	for i := range l.nodes {
		if s := l.nodes[i].Swap(nil); s != nil {
			(*s).close()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.gone {
		s.close()
	}
	if l.server != nil {
		l.server.stop()
	}
	return nil
}

// bytesOf returns the capacity of a node: as much as weir's near and owned tier together.
func bytesOf(env harness.Env) int64 {
	c := env.Scenario.Cluster
	return max(0, int64(c.Near)) + int64(c.Owned)
}

// overhead is the assumed cost of an entry besides its key and its value, in bytes, for stores that let the adapter
// define it.
const overhead = 128

// costOf returns the cost of such an entry.
func costOf(key string, b []byte) int64 { return int64(len(key) + len(b) + overhead) }
