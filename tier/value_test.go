package tier

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/near"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// hooked is a codec of strings with parts that tests replace.
type hooked struct {
	codec.Codec[string]
	append func(v string) ([]byte, error) // nil: the default
	decode func(b []byte) (string, error)
	lost   []string
}

func (h *hooked) Append(dst []byte, v string) ([]byte, error) {
	if h.append == nil {
		return append(dst, v...), nil
	}
	b, err := h.append(v)
	return append(dst, b...), err
}

func (h *hooked) Decode(b []byte) (string, error) {
	if h.decode == nil {
		return string(b), nil
	}
	return h.decode(b)
}

func (h *hooked) Lost() []string { return h.lost }

func hook(cfg Config[string]) (*hooked, Config[string]) {
	h := &hooked{Codec: codec.Raw[string]()}
	cfg.Codec = h
	return h, cfg
}

// The callers that wait for a fill get the same value as later callers, not the one in the loader's hands.
func TestFillersGetWhatLaterCallersGet(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprint("ServeLoaded ", own), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h, cfg := hook(plain(ByKey(slow(0).load)))
				cfg.ServeLoaded = own
				h.decode = func(b []byte) (string, error) { return "decoded " + string(b), nil }
				c := open(t, cfg)
				first := map[bool]string{false: "decoded k#1", true: "k#1"}[own]
				get(t, c, "k", first)
				get(t, c, "k", "decoded k#1")
				if m, err := c.GetMany(background, []string{"l", "m"}); err != nil || strings.HasPrefix(m["l"], "decoded ") == own {
					t.Error(m, err)
				}
			})
		})
	}
}

// A loader may reuse the memory of a value for the next one: near copies do not change.
func TestLoaderMayReuseItsBuffer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		buffer := make([]byte, 8)
		cfg := plain(func(ctx context.Context, f *Fill[string]) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			copy(buffer, f.Key+"-value")
			return unsafe.String(&buffer[0], len(buffer)), nil
		})
		cfg.NearBytes = MinBytes
		cfg.Codec = codec.Raw[string]()
		c := open(t, cfg)
		for range 2 { // the second read is a near hit
			for _, key := range []string{"a", "b", "c"} {
				get(t, c, key, key+"-value\x00"[:7])
				c.near.Wait()
			}
		}
		if c.Stats().Near == 0 {
			t.Error("no near hit")
		}
	})
}

// What a loader does with a Fill after it has returned does not change what callers get.
func TestFillThatIsUsedTooLateChangesNothing(t *testing.T) {
	for _, loaded := range []bool{true, false} {
		c := open(t, Config[string]{
			Freshness: Freshness{TTL: time.Minute}, ServeLoaded: loaded, Loader: func(context.Context, *Fill[string]) (string, error) { return "", nil },
		})
		f := &Fill[string]{values: &c.values, value: "right"}
		if _, err := (filling[string]{f}).Pack(); err != nil {
			t.Fatal(err)
		}
		f.Set("wrong")
		var a answer[string]
		found := owner.Found{E: &store.Entry{Hard: owner.Never}, Fill: filling[string]{f}}
		if err := c.answerTo(c.own.Clock.Now(), "k", &found, 0, &a); err != nil || a.value != "right" {
			t.Errorf("ServeLoaded %v: callers get %q, %v", loaded, a.value, err)
		}
	}
}

// A copy that cannot be decoded is dropped, counted and loaded again, both at its owner and for a peer. A value that
// can never be decoded costs its callers an error, and the origin one load.
func TestCopyThatCannotBeDecodedIsLoadedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h, cfg := hook(plain(nil))
		o := slow(0)
		cfg.Loader = ByKey(o.load)
		h.decode = func(b []byte) (string, error) {
			if strings.HasPrefix(string(b), "poison") {
				return "", errors.New("what is this")
			}
			return string(b), nil
		}
		c := open(t, cfg)
		poison := func(key string) {
			get(t, c, key, fmt.Sprintf("%s#%d", key, o.n.Load()+1))
			e, _ := c.own.Owned.Get(key)
			bad := *e
			bad.Value = []byte("poison")
			c.own.Owned.Set(key, &bad)
		}
		poison("k")
		get(t, c, "k", "k#2")
		get(t, c, "k", "k#2")
		poison("l")
		if m, err := c.GetMany(background, []string{"k", "l"}); err != nil || m["k"] != "k#2" || m["l"] != "l#4" {
			t.Error(m, err)
		}
		if n := c.Stats().Undecodable; n != 2 {
			t.Errorf("%d were counted", n)
		}
		h.append = func(string) ([]byte, error) { return []byte("poison"), nil }
		for range 3 {
			if v, err := c.Get(background, "bad"); err == nil || !strings.Contains(err.Error(), "what is this") {
				t.Errorf("%q, %v", v, err)
			}
		}
		o.want(t, 5)
		if err := c.Put(background, "k", "v", PutOptions{Version: 1}); err == nil {
			t.Error("a value was put that cannot be decoded")
		}
	})
}

// A peer that cannot decode its owner's copy makes the owner load the key again.
func TestPeerThatCannotDecodeACopyHasItLoadedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, o := newSim(t, 2), newOrigin()
		caches := s.start(o, Config[simValue]{})
		defer s.stop(caches)
		view := s.nodes["n0"].View()
		keys := []string{keyOf(view, "n1", 0), keyOf(view, "n1", 1), keyOf(view, "n1", 2)}
		for _, key := range keys {
			gets(t, caches["n1"], key, 0)
			e, _ := caches["n1"].own.Owned.Get(key)
			bad := *e
			bad.Value, bad.Etag = []byte{0xc1}, 1
			caches["n1"].own.Owned.Set(key, &bad)
		}
		loads := o.loads.Load()
		gets(t, caches["n0"], keys[0], 0)
		if m, err := caches["n0"].GetMany(background, keys[1:]); err != nil || len(m) != 2 {
			t.Error(m, err)
		}
		if n := o.loads.Load() - loads; n != 3 {
			t.Errorf("%d loads", n)
		}
		gets(t, caches["n1"], keys[0], 0)
		if n := caches["n0"].Stats().Undecodable; n != 3 {
			t.Errorf("%d were counted", n)
		}
	})
}

// A codec that ends the goroutine, or panics, costs the callers of its key an error, and affects no other key.
func TestCodecThatEndsTheGoroutine(t *testing.T) {
	for name, where := range map[string]func(h *hooked, end func()){
		"append": func(h *hooked, end func()) {
			h.append = func(v string) ([]byte, error) {
				if strings.HasPrefix(v, "bad") {
					end()
				}
				return []byte(v), nil
			}
		},
		"decode": func(h *hooked, end func()) {
			h.decode = func(b []byte) (string, error) {
				if strings.HasPrefix(string(b), "bad") {
					end()
				}
				return string(b), nil
			}
		},
	} {
		for how, end := range map[string]func(){"Goexit": runtime.Goexit, "panic": func() { panic("codec") }} {
			t.Run(name+" "+how, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					h, cfg := hook(plain(ByKey(slow(0).load)))
					cfg.BatchLoader = func(ctx context.Context, fills []*Fill[string]) error {
						for _, f := range fills {
							f.Set(f.Key + " of many")
						}
						return nil
					}
					where(h, end)
					c := open(t, cfg)
					ctx, cancel := context.WithTimeout(background, time.Minute)
					defer cancel()
					for range 2 {
						if v, err := c.Get(ctx, "bad"); err == nil || ctx.Err() != nil || how == "Goexit" && !errors.Is(err, ErrGoexit) {
							t.Errorf("%q, %v", v, err)
						}
					}
					m, err := c.GetMany(ctx, []string{"a", "bad2", "b", "bad3", "c"})
					var many *ManyError
					if !errors.As(err, &many) || len(m) != 3 || len(many.Errs) != 2 || ctx.Err() != nil {
						t.Errorf("%v, %v", m, err)
					}
					h.append, h.decode = nil, nil
					_ = pause(background, 5*time.Second) // the error is not remembered longer than this
					if v, err := c.Get(background, "bad"); err != nil {
						t.Errorf("the key is dead: %q, %v", v, err)
					}
				})
			})
		}
	}
}

// Each exported error of this package and of context that a loader returns on another member is the same error here.
func TestErrorsKeepTheirIdentityOverTheWire(t *testing.T) {
	byName := map[string]error{
		"ErrNotFound": ErrNotFound, "ErrOverloaded": ErrOverloaded, "ErrNotCached": ErrNotCached, "ErrIsolated": ErrIsolated,
		"ErrClosed": ErrClosed, "ErrBadTag": ErrBadTag, "ErrEmptyKey": ErrEmptyKey, "ErrKeyTooLarge": ErrKeyTooLarge,
		"ErrValueTooLarge": ErrValueTooLarge, "ErrCycle": ErrCycle, "ErrGoexit": ErrGoexit,
		"ErrTimeout": ErrTimeout, "ErrExpired": ErrExpired, "ErrUnset": ErrUnset, "ErrBadToken": ErrBadToken, "ErrDrilling": ErrDrilling,
		"ErrFeedGap": ErrFeedGap, "ErrNoVersion": ErrNoVersion, "ErrNotWarmed": ErrNotWarmed, "ErrTTLTooLong": ErrTTLTooLong,
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if name := file.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok || g.Tok != token.VAR {
					continue
				}
				for _, s := range g.Specs {
					for _, n := range s.(*ast.ValueSpec).Names {
						if strings.HasPrefix(n.Name, "Err") && byName[n.Name] == nil {
							t.Errorf("%s is not in this test: add it, and give it the next number in numberedErrors", n.Name)
						}
					}
				}
			}
		}
	}
	byName["context.DeadlineExceeded"], byName["context.Canceled"] = context.DeadlineExceeded, context.Canceled
	bubble(t, func(t *testing.T) {
		s := newSim(t, 2)
		var fail error
		cfg := Config[simValue]{
			Freshness: Freshness{TTL: time.Hour, ErrorTTL: -1, RefreshAhead: -1, Jitter: -1},
			Origin:    Origin{Breaker: Breaker{Failures: -1}},
		}
		cfg.Loader = func(ctx context.Context, f *Fill[simValue]) (simValue, error) { return simValue{}, fail }
		caches := s.start(newOrigin(), cfg)
		defer s.stop(caches)
		i := 0
		for name, want := range byName {
			for what, wrapped := range map[string]error{"": want, " wrapped": fmt.Errorf("outer: %w", &FillError{Err: want})} {
				fail = wrapped
				key := keyOf(s.nodes["n0"].View(), "n1", i)
				i++
				_, err := caches["n0"].Get(background, key)
				var e *FillError
				if !errors.Is(err, want) {
					t.Errorf("%s%s: %v", name, what, err)
				} else if errors.As(err, &e) && e.Owner != "n1" {
					t.Errorf("%s%s: at %q: %v", name, what, e.Owner, err)
				}
				for other, not := range byName {
					if errors.Is(err, not) && !errors.Is(want, not) && other != "ErrTimeout" {
						t.Errorf("%s%s is %s: %v", name, what, other, err)
					}
				}
			}
		}
	})
	for _, n := range []uint64{200, 1<<64 - 1, 0} {
		if err := owner.ErrorOf(&codec.Response{Text: []byte("x"), Incarnation: n}); err.Error() != "x" || errors.Is(err, ErrClosed) {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// A value larger than a quarter of the tier is rejected, whether ValueLimit is set or left at its default. Such a
// value, if the store gets it anyway, leaves the other entries in place.
func TestLargeValueDoesNotEmptyTheTier(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := plain(ByKey(func(_ context.Context, key string) (string, error) {
			if key == "large" {
				return strings.Repeat("x", 900<<10), nil
			}
			return key, nil
		}))
		cfg.OwnedBytes = 512 << 10
		c := open(t, cfg)
		for i := range 100 {
			get(t, c, fmt.Sprint(i), fmt.Sprint(i))
		}
		getErr(t, c, "large", ErrValueTooLarge)
		c.own.Owned.Set("large", &store.Entry{Value: make([]byte, 900<<10)})
		for i := range 100 {
			if _, ok := c.own.Owned.Get(fmt.Sprint(i)); !ok {
				t.Fatalf("%d is gone", i)
			}
		}
		if n := c.own.Owned.Bytes(); n > cfg.OwnedBytes {
			t.Errorf("%d bytes in a tier of %d", n, cfg.OwnedBytes)
		}
	})
}

// When a cache is made, it logs which parts of a value callers will not see.
func TestNewLogsWhatIsLost(t *testing.T) {
	var log strings.Builder
	h, cfg := hook(plain(ByKey(slow(0).load)))
	h.lost = []string{"T.hidden"}
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	open(t, cfg)
	if !strings.Contains(log.String(), "T.hidden") {
		t.Errorf("logged: %q", log.String())
	}
}

// A near copy costs what its value takes in memory, not the length of its encoding.
func TestNearCopyIsChargedWithWhatItTakes(t *testing.T) {
	c := open(t, Config[[]string]{
		Freshness: Freshness{TTL: time.Minute},
		Loader:    func(context.Context, *Fill[[]string]) ([]string, error) { return make([]string, 10_000), nil },
	})
	if _, err := c.Get(t.Context(), "k"); err != nil { // 10 kB encoded, 160 kB in memory
		t.Fatal(err)
	}
	c.near.Wait()
	if bytes, least := c.near.Stats().Bytes, int64(10_000*unsafe.Sizeof("")); bytes < least {
		t.Errorf("charged with %d bytes, it takes %d", bytes, least)
	}
}

// The near tier's heap stays within 1.3 times its bytes, whatever values consist of.
func TestNearTierIsNoLargerThanItMayBe(t *testing.T) {
	const size = 4 << 20
	weigh := codec.Weigher[any]()
	c := codec.Msgpack[any]()
	for name, v := range map[string]any{
		"maps":    map[string]any{"a": map[string]any{"b": 1000}, "c": map[string]any{}, "d": map[string]any{"e": "text"}},
		"lists":   []any{[]any{1000, 2000}, []any{"x"}, []any{[]byte("bytes")}},
		"strings": strings.Repeat("text", 20),
		"numbers": int64(1 << 40),
	} {
		b, err := c.Append(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		heap := func() int64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		before := heap()
		n, err := near.New[nearEntry[any]](size)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 12_000 {
			own, err := c.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			n.Set(fmt.Sprint("key", i), nearEntry[any]{value: own}, weigh(own))
			if i%100 == 0 {
				n.Wait()
			}
		}
		n.Wait()
		took, said := heap()-before, n.Stats().Bytes
		if took > size*13/10 || said < size/2 {
			t.Errorf("%s: %d bytes of heap for a near tier of %d, which says %d", name, took, size, said)
		}
		n.Close()
	}
}

// BenchmarkPack compares what a fill spends on its value: encoding and decoding, or encoding alone with
// Config.ServeLoaded.
func BenchmarkPack(b *testing.B) {
	type product struct {
		Name   string
		Price  int64
		Tags   []string
		Stocks map[string]int
	}
	v := product{"a chair", 4900, []string{"wood", "brown", "new"}, map[string]int{"north": 3, "south": 5}}
	for name, loaded := range map[string]bool{"decoded": false, "as loaded": true} {
		b.Run(name, func(b *testing.B) {
			c := open(b, Config[product]{
				Freshness: Freshness{TTL: time.Minute}, ServeLoaded: loaded,
				Loader: func(context.Context, *Fill[product]) (product, error) { return v, nil },
			})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := (filling[product]{&Fill[product]{values: &c.values, value: v}}).Pack(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
