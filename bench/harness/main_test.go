package harness

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/weircache/weir/bench/scenario"
	"github.com/weircache/weir/internal/simtime"
)

// TestMain makes the test binary the process of a node as well.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == NodeArg {
		if err := PlayNode(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// bubble runs f with virtual time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	simtime.Test(t, f)
}

func parse(t *testing.T, text string) *scenario.Scenario {
	t.Helper()
	s, err := scenario.Parse("test.yaml", []byte("name: test\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fake is a system for tests: a map that all nodes share, or the behaviour of get.
type fake struct {
	env      Env
	get      func(ctx context.Context, f *fake, key string) ([]byte, error)
	fault    func(s Step) error
	health   func() error
	startErr error

	mu    sync.Mutex // guards the rest
	held  map[string][]byte
	steps []Step
}

func (*fake) Name() string     { return "fake" }
func (*fake) Setup() string    { return "none" }
func (*fake) Limits() []string { return []string{"everything"} }

func (f *fake) Start(_ context.Context, env Env) (Cluster, error) {
	if f.startErr != nil {
		return nil, f.startErr
	}
	f.env, f.held = env, make(map[string][]byte)
	return f, nil
}

func (f *fake) Get(ctx context.Context, _ int, key string) ([]byte, error) {
	if f.get != nil {
		return f.get(ctx, f, key)
	}
	return f.cached(ctx, key)
}

func (f *fake) cached(ctx context.Context, key string) ([]byte, error) {
	f.mu.Lock()
	b, ok := f.held[key]
	f.mu.Unlock()
	if ok {
		return b, nil
	}
	b, err := f.env.Load(ctx, key)
	if err == nil {
		f.mu.Lock()
		f.held[key] = b
		f.mu.Unlock()
	}
	return b, err
}

func (f *fake) Invalidate(_ context.Context, _ int, key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.held, key)
	return nil
}

func (f *fake) Fault(_ context.Context, s Step) error {
	f.mu.Lock()
	f.steps = append(f.steps, s)
	f.mu.Unlock()
	if f.fault != nil {
		return f.fault(s)
	}
	return fmt.Errorf("%w %s", ErrCannot, s)
}

func (f *fake) Health() error {
	if f.health != nil {
		return f.health()
	}
	return nil
}

func (*fake) Close(context.Context) error { return nil }
