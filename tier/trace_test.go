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
	"testing"
	"time"

	"github.com/weircache/weir/codec"
)

// book is a Tracer that writes down what it is told.
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
