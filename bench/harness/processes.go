package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/tier"
)

// NodeArg is the first argument of a process that is a node. A program that embeds the harness passes the remaining
// arguments to PlayNode.
const NodeArg = "harness-node"

// processes are nodes in separate processes on this machine. Their calls, and their loads from the one model of the
// origin in this process, go through net/rpc over the loopback. The harness itself accounts for some ten
// microseconds.
type processes struct {
	env    Env
	exe    []string
	origin net.Listener
	server *rpc.Server
	wg     sync.WaitGroup // the origin's goroutines

	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}

	nodes []atomic.Pointer[process]
}

// process is one node as the parent sees it.
type process struct {
	*bench.Process
	client     *rpc.Client
	addr       string      // for peers
	starvation *starvation // nil: none is in progress
}

// Call is a call over net/rpc.
type Call struct {
	Do   string // what a node does, such as "get"
	Keys []string
	Left time.Duration // until the caller's deadline; 0: none
}

// Answer is what a Call returns. Err is the text of an error, and Kind its identity if it is one of those that keep it.
type Answer struct {
	Values    [][]byte // by key; empty where a key failed
	Err, Kind string
}

// identities returns the errors that keep their identity across processes.
func identities() map[string]error {
	return map[string]error{
		"overloaded": tier.ErrOverloaded, "closed": tier.ErrClosed, "deadline": context.DeadlineExceeded,
		"origin": ErrOrigin, "refused": ErrRefused,
	}
}

func answer(values [][]byte, err error) Answer {
	a := Answer{Values: values}
	if err != nil {
		a.Err = err.Error()
		for kind, e := range identities() {
			if errors.Is(err, e) {
				a.Kind = kind
			}
		}
	}
	return a
}

func (a Answer) err() error {
	if a.Err == "" {
		return nil
	}
	if e := identities()[a.Kind]; e != nil {
		return fmt.Errorf("%w (in another process: %s)", e, a.Err)
	}
	return errors.New(a.Err)
}

// originService is the origin's RPC interface for nodes in other processes.
type originService struct{ env Env }

// Load reads a key.
func (o *originService) Load(q Call, a *Answer) error {
	ctx, cancel := within(q.Left)
	defer cancel()
	b, err := o.env.Load(ctx, q.Keys[0])
	*a = answer([][]byte{b}, err)
	return nil
}

func within(left time.Duration) (context.Context, context.CancelFunc) {
	if left > 0 {
		return context.WithTimeout(context.Background(), left)
	}
	return context.WithCancel(context.Background())
}

func left(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return max(1, time.Until(end))
	}
	return 0
}

// call makes an RPC that ends with ctx, and returns the values by key.
func call(ctx context.Context, c *rpc.Client, method string, q Call) ([][]byte, error) {
	var a Answer
	pending := c.Go(method, q, &a, make(chan *rpc.Call, 1))
	select {
	case <-pending.Done:
		return a.Values, errors.Join(pending.Error, a.err())
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// one returns the value of the only key.
func one(values [][]byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return values[0], nil
}

// startProcesses starts the nodes: exe with NodeArg and the arguments of PlayNode.
func startProcesses(ctx context.Context, env Env, exe []string) (Cluster, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &processes{env: env, exe: exe, origin: l, server: rpc.NewServer(), conns: make(map[net.Conn]struct{}),
		nodes: make([]atomic.Pointer[process], env.Scenario.Cluster.Nodes)}
	if err := c.server.RegisterName("Origin", &originService{env}); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	c.wg.Go(c.accept)
	for i := range c.nodes {
		if err := c.join(ctx, i); err != nil {
			return nil, errors.Join(err, c.Close(ctx))
		}
	}
	for i := range c.nodes {
		if _, err := c.do(ctx, i, "await", strconv.Itoa(len(c.nodes))); err != nil {
			return nil, errors.Join(err, c.Close(ctx))
		}
	}
	return c, nil
}

func (c *processes) accept() {
	for {
		conn, err := c.origin.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		c.conns[conn] = struct{}{}
		c.mu.Unlock()
		c.wg.Go(func() {
			c.server.ServeConn(conn)
			c.mu.Lock()
			delete(c.conns, conn)
			c.mu.Unlock()
		})
	}
}

// join starts node i.
func (c *processes) join(ctx context.Context, i int) error {
	if c.nodes[i].Load() != nil {
		return fmt.Errorf("node %d is up already", i)
	}
	var peers []string
	for k := range c.nodes {
		if p := c.nodes[k].Load(); p != nil {
			peers = append(peers, p.addr)
		}
	}
	s, err := c.env.Scenario.YAML()
	if err != nil {
		return err
	}
	args := append(append([]string(nil), c.exe[1:]...), NodeArg, strconv.Itoa(i), c.origin.Addr().String(), strings.Join(peers, ","))
	child, err := bench.StartChild(ctx, exec.Command(c.exe[0], args...), fmt.Appendf(nil, "%d\n%s", len(s), s))
	if err != nil {
		return fmt.Errorf("the process of node %d: %w", i, err)
	}
	fail := func(err error) error {
		child.Kill()
		return fmt.Errorf("the process of node %d: %w", i, err)
	}
	if len(child.Words) != 2 {
		return fail(fmt.Errorf("it said %q, not two addresses", child.Words))
	}
	conn, err := net.Dial("tcp", child.Words[1])
	if err != nil {
		return fail(err)
	}
	p := &process{Process: child, addr: child.Words[0]}
	p.client = rpc.NewClient(conn)
	c.nodes[i].Store(p)
	return nil
}

// do makes a call to a node.
func (c *processes) do(ctx context.Context, i int, do string, keys ...string) ([][]byte, error) {
	p := c.nodes[i].Load()
	if p == nil {
		return nil, tier.ErrClosed
	}
	return call(ctx, p.client, "Node.Do", Call{do, keys, left(ctx)})
}

// counters returns the counters of node i.
func (c *processes) counters(i int) (map[string]float64, error) {
	p := c.nodes[i].Load()
	if p == nil {
		return nil, fmt.Errorf("node %d is down", i)
	}
	var out map[string]float64
	err := p.client.Call("Node.Counters", struct{}{}, &out)
	return out, err
}

// Get reads a key on a node.
func (c *processes) Get(ctx context.Context, i int, key string) ([]byte, error) {
	return one(c.do(ctx, i, "get", key))
}

// Many reads keys on a node.
func (c *processes) Many(ctx context.Context, i int, keys []string) ([][]byte, error) {
	return c.do(ctx, i, "get", keys...)
}

// Invalidate invalidates a key from a node.
func (c *processes) Invalidate(ctx context.Context, i int, key string) error {
	_, err := c.do(ctx, i, "invalidate", key)
	return err
}

// Fault executes a step.
func (c *processes) Fault(ctx context.Context, s Step) error {
	if s.Do == StepJoin {
		if err := c.join(ctx, s.Node); err != nil {
			return err
		}
		_, err := c.do(ctx, s.Node, "ready")
		return err
	}
	switch s.Do {
	case StepKill, StepLeave, StepStarve, StepFeed:
	default:
		return fmt.Errorf("%w %s", ErrCannot, s)
	}
	p := c.nodes[s.Node].Load()
	if p == nil {
		return fmt.Errorf("node %d is down already", s.Node)
	}
	if s.Do == StepStarve {
		return p.starve()
	}
	err := p.feed()
	switch s.Do {
	case StepFeed:
		return err
	case StepKill:
		c.nodes[s.Node].Store(nil)
		select {
		case <-p.Done():
			err = errors.Join(err, fmt.Errorf("node %d had ended before it was to be killed", s.Node))
		default:
		}
		p.Kill()
		return errors.Join(err, p.client.Close())
	}
	c.nodes[s.Node].Store(nil)
	return errors.Join(err, p.leave(ctx))
}

// hold makes the process stand still, or run again.
func (p *process) hold(still bool) error {
	act := p.Resume
	if still {
		act = p.Pause
	}
	if err := act(); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return ErrCannot
}

// leave makes a process leave gracefully.
func (p *process) leave(ctx context.Context) error {
	err := p.End(ctx)
	_ = p.client.Close() // the process is gone, and the connection with it
	return err
}

// Health returns an error if a process has ended by itself.
func (c *processes) Health() error {
	for i := range c.nodes {
		if p := c.nodes[i].Load(); p != nil {
			select {
			case <-p.Done():
				if c.nodes[i].Load() == p {
					return fmt.Errorf("the process of node %d has ended: %s", i, p.State())
				}
			default:
			}
		}
	}
	return nil
}

// Processes returns the IDs of the nodes' processes.
func (c *processes) Processes() (ids []int) {
	for i := range c.nodes {
		if p := c.nodes[i].Load(); p != nil {
			ids = append(ids, p.ID())
		}
	}
	return ids
}

// Close ends all processes and the origin.
func (c *processes) Close(ctx context.Context) error {
	var errs []error
	for i := range c.nodes {
		if p := c.nodes[i].Swap(nil); p != nil {
			errs = append(errs, p.feed())
			errs = append(errs, p.leave(ctx))
		}
	}
	errs = append(errs, c.origin.Close())
	c.mu.Lock()
	for conn := range c.conns {
		_ = conn.Close()
	}
	c.mu.Unlock()
	c.wg.Wait()
	return errors.Join(errs...)
}
