package tier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
)

// book is a Tracer that records what it is told.
type book struct {
	mu    sync.Mutex // guards lines
	lines []string
}

type bookKey struct{}

func (b *book) Start(ctx context.Context, w Work) (context.Context, func(error)) {
	parent, _ := ctx.Value(bookKey{}).(string)
	name := strings.TrimSpace(w.Kind + " " + w.Namespace + " " + w.Member)
	return context.WithValue(ctx, bookKey{}, name), func(err error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.lines = append(b.lines, fmt.Sprintf("%s in %q: %v", name, parent, err))
	}
}

func (b *book) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.lines
	b.lines = nil
	return out
}

func TestTracer(t *testing.T) {
	tracer := &book{}
	down := errors.New("down")
	c, err := New(Config[string]{
		Namespace: "p", Tracer: tracer, Freshness: Freshness{TTL: time.Minute, ErrorTTL: -1},
		Loader: func(ctx context.Context, f *Fill[string]) (string, error) {
			if in, _ := ctx.Value(bookKey{}).(string); in != "fill p" {
				t.Errorf("the loader runs in %q", in)
			}
			switch f.Key {
			case "missing":
				return "", ErrNotFound
			case "down":
				return "", down
			case "panic":
				panic("no")
			case "exit":
				runtime.Goexit()
			}
			var profile bytes.Buffer
			_ = pprof.Lookup("goroutine").WriteTo(&profile, 1)
			if !strings.Contains(profile.String(), `"weir_namespace":"p"`) || !strings.Contains(profile.String(), `"weir_phase":"load"`) {
				t.Error("the goroutine has no labels")
			}
			return "v", nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	for key, want := range map[string]string{
		"k": "<nil>", "missing": "<nil>", "down": "down", "panic": ErrGoexit.Error(), "exit": ErrGoexit.Error(),
	} {
		v, err := c.Get(t.Context(), key)
		if (err == nil) != (key == "k") || err == nil && v != "v" || key == "down" && !errors.Is(err, down) {
			t.Errorf("%s: %q %v", key, v, err)
		}
		if got := tracer.take(); !slices.Equal(got, []string{`fill p in "": ` + want}) {
			t.Errorf("%s: %q", key, got)
		}
	}
	if _, err := c.Get(t.Context(), "k"); err != nil || len(tracer.take()) != 0 {
		t.Error("a hit was traced")
	}
}

// carrying is a book that numbers its works. Other members know a work by its number.
type carrying struct {
	book
	last atomic.Uint32
}

type numberKey struct{}

func (b *carrying) Start(ctx context.Context, w Work) (context.Context, func(error)) {
	ctx = context.WithValue(ctx, numberKey{}, Trace{0: byte(b.last.Add(1))})
	if w.Cause != (Trace{}) {
		ctx = context.WithValue(ctx, bookKey{}, fmt.Sprint("caused by ", w.Cause[0]))
	}
	return b.book.Start(ctx, w)
}

func (b *carrying) Trace(ctx context.Context) (Trace, bool) {
	w, ok := ctx.Value(numberKey{}).(Trace)
	return w, ok
}

func (b *carrying) Within(ctx context.Context, w Trace) context.Context {
	return context.WithValue(context.WithValue(ctx, bookKey{}, fmt.Sprint("within ", w[0])), numberKey{}, w)
}

// The owner's work for a get is part of the trace that the get carries. A hit at the owner is not work.
func TestCarrier(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		b := new(carrying)
		caches := s.start(o, Config[simValue]{Tracer: b, NearBytes: -1})
		defer s.stop(caches)
		key := keyOf(s.nodes["n0"].View(), "n1", 0)
		for i, want := range [][]string{
			{`fill sim in "caused by 2": <nil>`, `serve sim in "within 1": <nil>`, `get sim n1 in "": <nil>`},
			{`get sim n1 in "": <nil>`},
		} {
			if _, err := caches["n0"].Get(background, key); err != nil {
				t.Fatal(err)
			}
			if got := b.take(); !slices.Equal(got, want) {
				t.Errorf("read %d: %q", i, got)
			}
		}
		ctx := b.Within(background, Trace{0: 77})
		if _, err := caches["n0"].Get(ctx, keyOf(s.nodes["n0"].View(), "n0", 0)); err != nil {
			t.Fatal(err)
		}
		if got := b.take(); !slices.Equal(got, []string{`fill sim in "caused by 77": <nil>`}) {
			t.Errorf("of an own key: %q", got)
		}
		many := []string{keyOf(s.nodes["n0"].View(), "n0", 1), keyOf(s.nodes["n0"].View(), "n1", 1)}
		if _, err := caches["n0"].GetMany(ctx, many); err != nil {
			t.Fatal(err)
		}
		got := b.take() // the owner is asked first for what it has, then for the rest
		slices.Sort(got)
		if !slices.Equal(slices.Compact(got), []string{`fill sim in "": <nil>`, `fill sim in "caused by 77": <nil>`, `getmany sim n1 in "within 77": <nil>`}) {
			t.Errorf("of several: %q", got)
		}
	})
}

func TestAnswerError(t *testing.T) {
	down := errors.New("down")
	if err := answerError(down, &codec.Response{Status: codec.StatusValue}); err != down {
		t.Error(err)
	}
	if err := answerError(nil, &codec.Response{Status: codec.StatusMoved}); err != nil {
		t.Error(err)
	}
	if err := answerError(nil, &codec.Response{Status: codec.StatusFailed, Text: []byte("no")}); err == nil || !strings.Contains(err.Error(), "no") {
		t.Error(err)
	}
}
