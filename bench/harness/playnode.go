package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"strconv"
	"strings"
	"sync"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/bench/member"
	"github.com/weircache/weir/bench/scenario"
)

// nodeService is the RPC interface of a node for its parent.
type nodeService struct{ n *node }

// Do makes a call. One key is read with Get, several with GetMany.
func (s *nodeService) Do(q Call, a *Answer) error {
	ctx, cancel := within(q.Left)
	defer cancel()
	var values [][]byte
	var err error
	switch {
	case q.Do == "get" && len(q.Keys) == 1:
		values = make([][]byte, 1)
		values[0], err = s.n.Cache.Get(ctx, q.Keys[0])
	case q.Do == "get":
		values, err = getMany(ctx, s.n.Cache, q.Keys)
	case q.Do == "invalidate":
		err = s.n.Cache.Invalidate(ctx, q.Keys[0])
	case q.Do == "await": // until the node sees so many members
		var members int
		if members, err = strconv.Atoi(q.Keys[0]); err == nil {
			err = member.AwaitView(ctx, s.n.Node, members)
		}
	case q.Do == "ready": // until the node takes part, according to its /readyz
		err = member.AwaitReady(ctx, s.n.Node)
	default:
		err = fmt.Errorf("harness: a node cannot %q", q.Do)
	}
	*a = answer(values, err)
	return nil
}

// Counters returns the node's own counters.
func (s *nodeService) Counters(_ struct{}, a *map[string]float64) error {
	*a = make(map[string]float64)
	count(*a, s.n.Cache.Stats())
	return nil
}

// PlayNode is the main function of a node's process. args are the arguments after NodeArg. It reads the scenario
// from in and writes its addresses to out. It leaves when in ends, which happens when the parent closes it or dies.
func PlayNode(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 3 {
		return fmt.Errorf("harness: a node takes 3 arguments, not %d", len(args))
	}
	number, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("harness: the node's number: %w", err)
	}
	var size int
	if _, err := fmt.Fscanln(in, &size); err != nil || size < 0 || size > 1<<20 {
		return fmt.Errorf("harness: a scenario of %d bytes: %w", size, err)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(in, b); err != nil {
		return err
	}
	s, err := scenario.Parse("from the parent", b)
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", args[1])
	if err != nil {
		return err
	}
	origin := rpc.NewClient(conn)
	defer func() { _ = origin.Close() }()
	env := Env{Scenario: s, Load: func(ctx context.Context, key string) ([]byte, error) {
		return one(call(ctx, origin, "Origin.Load", Call{Keys: []string{key}, Left: left(ctx)}))
	}}
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	cfg := nodeConfig(number, s.Cluster.Nodes)
	if args[2] != "" {
		cfg.Join = strings.Split(args[2], ",")
	}
	n, err := member.Start(ctx, cfg, cacheConfig(env))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := rpc.NewServer()
	if err := server.RegisterName("Node", &nodeService{n}); err != nil {
		return err
	}
	parent := make(chan net.Conn, 1)
	var serving sync.WaitGroup
	serving.Go(func() {
		c, err := l.Accept() // the parent's one connection
		if err == nil {
			parent <- c
			server.ServeConn(c)
		}
	})
	told := bench.Obey(in, out, fmt.Sprint(n.Node.Addr(), " ", l.Addr()))
	leaving, cancel := context.WithTimeout(context.Background(), closeWithin/2)
	defer cancel()
	err = errors.Join(told, n.Leave(leaving), l.Close())
	select {
	case c := <-parent:
		_ = c.Close() // ends the serving
	default:
	}
	serving.Wait()
	return err
}
