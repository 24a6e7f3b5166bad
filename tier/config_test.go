package tier

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/counters"
	"github.com/weircache/weir/tier/internal/hotkeys"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/near"
	"github.com/weircache/weir/tier/internal/owner"
)

// New reports every problem at once, and names the field of each.
func TestConfigErrors(t *testing.T) {
	_, err := New(Config[string]{
		Namespace: strings.Repeat("n", codec.MaxNamespace+1),
		Freshness: Freshness{
			StaleWhileRevalidate: -1, StaleIfError: -1, NegativeTTL: maxTTL + 1, ErrorTTL: maxTTL + 1,
			Jitter: math.NaN(), RefreshAhead: math.Inf(1),
		},
		Origin:    Origin{Concurrency: -1, Timeout: -1, Queue: -1},
		NearBytes: 1, OwnedBytes: 1, ValueLimit: -1, InvalidateTimeout: time.Hour,
	})
	if err == nil {
		t.Fatal("no error")
	}
	fields := []string{
		"Namespace", "Loader", "Freshness.TTL", "Freshness.StaleWhileRevalidate", "Freshness.StaleIfError",
		"Freshness.NegativeTTL", "Freshness.ErrorTTL", "Freshness.Jitter", "Freshness.RefreshAhead",
		"Origin.Concurrency", "Origin.Timeout", "Origin.Queue", "NearBytes", "OwnedBytes", "ValueLimit", "InvalidateTimeout",
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(fields) {
		t.Errorf("%d problems, want %d:\n%v", len(lines), len(fields), err)
	}
	for _, f := range fields {
		if !strings.Contains(err.Error(), f+" ") {
			t.Errorf("%s is not named:\n%v", f, err)
		}
	}
}

// carrier is a Cluster that carries only short values.
type carrier struct{ Cluster }

func (carrier) ValueLimit() int { return 1000 }

// New, which calls check, reports what could otherwise only fail later, with the first value or on another member. A
// test of types calls check itself, because each type that a cache is made with costs the compiler seconds.
func TestConfigOfTheType(t *testing.T) {
	type hidden struct{ name string }
	type live struct{ Done chan int }
	want := func(err error, text string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
	}
	loaderOf := func(change func(*Config[hidden])) error {
		cfg := Config[hidden]{
			Freshness: Freshness{TTL: time.Minute},
			Loader:    ByKey(func(context.Context, string) (hidden, error) { return hidden{"v"}, nil }),
		}
		change(&cfg)
		return cfg.check()
	}
	want(loaderOf(func(*Config[hidden]) {}), "Codec is empty, so it is msgpack: tier.hidden: no field")
	want(loaderOf(func(c *Config[hidden]) { c.Codec = codec.JSON[hidden]() }), "Codec json: tier.hidden: no field")
	lively := Config[live]{
		Freshness: Freshness{TTL: time.Minute},
		Loader:    ByKey(func(context.Context, string) (live, error) { return live{}, nil }),
	}
	want(lively.check(), "tier.live.Done: a chan int cannot be encoded")
	_, err := New(Config[string]{
		Cluster: (*carrier)(nil), Namespace: "x", Freshness: Freshness{TTL: time.Minute},
		Loader: ByKey(func(context.Context, string) (string, error) { return "v", nil }),
	})
	want(err, "Cluster is a nil *tier.carrier")
	cfg := Config[string]{Cluster: &carrier{}, Namespace: "x", ValueLimit: 1001}
	_, err = New(cfg)
	want(err, "ValueLimit is 1001: the node carries values of at most 1000")
	cfg.ValueLimit = 0
	if l := cfg.withDefaults().ValueLimit; l != 1000 {
		t.Errorf("the default limit is %d, the node carries values of at most 1000", l)
	}
}

func TestConfigEdges(t *testing.T) {
	load := ByKey(func(context.Context, string) (string, error) { return "v", nil })
	for name, x := range map[string]struct {
		change func(*Config[string])
		want   string // in the error; empty: the type is valid
	}{
		"the least": {func(c *Config[string]) { c.Freshness.TTL = time.Minute }, ""},
		"all off": {func(c *Config[string]) {
			c.NearBytes = -1
			c.Freshness = Freshness{TTL: time.Minute, NegativeTTL: -1, ErrorTTL: -1, NearTTL: -1, Jitter: -1, RefreshAhead: -1}
		}, ""},
		"zero TTL":               {func(c *Config[string]) { c.Freshness.TTL = 0 }, "Freshness.TTL"},
		"longest TTL":            {func(c *Config[string]) { c.Freshness.TTL = maxTTL }, ""},
		"MaxTTL below TTL":       {func(c *Config[string]) { c.Freshness.MaxTTL = c.Freshness.TTL - 1 }, "Freshness.MaxTTL"},
		"MaxTTL":                 {func(c *Config[string]) { c.Freshness.MaxTTL = c.Freshness.TTL }, ""},
		"too long a TTL":         {func(c *Config[string]) { c.Freshness.TTL = maxTTL + 1 }, "Freshness.TTL"},
		"NearTTL over TTL":       {func(c *Config[string]) { c.Freshness.NearTTL = time.Minute + 1 }, "Freshness.NearTTL"},
		"jitter":                 {func(c *Config[string]) { c.Freshness.Jitter = 0.91 }, "Freshness.Jitter"},
		"beta":                   {func(c *Config[string]) { c.Freshness.RefreshAhead = 101 }, "Freshness.RefreshAhead"},
		"namespace not UTF-8":    {func(c *Config[string]) { c.Namespace = "a\xff" }, "Namespace"},
		"namespace with control": {func(c *Config[string]) { c.Namespace = "a\nb" }, "Namespace"},
		"longest namespace":      {func(c *Config[string]) { c.Namespace = strings.Repeat("n", codec.MaxNamespace) }, ""},
		"foreign namespace":      {func(c *Config[string]) { c.Namespace = "Produkte für Ändern" }, ""},
		"least tiers":            {func(c *Config[string]) { c.NearBytes, c.OwnedBytes = MinBytes, MinBytes }, ""},
		"small near tier":        {func(c *Config[string]) { c.NearBytes = MinBytes - 1 }, "NearBytes"},
		"small owned tier":       {func(c *Config[string]) { c.OwnedBytes = MinBytes - 1 }, "OwnedBytes"},
		"big values":             {func(c *Config[string]) { c.OwnedBytes, c.ValueLimit = MinBytes, MinBytes/4+1 }, "ValueLimit"},
		"as big as may be":       {func(c *Config[string]) { c.OwnedBytes, c.ValueLimit = MinBytes, MinBytes/4 }, ""},
		"too big":                {func(c *Config[string]) { c.ValueLimit = MaxValueLimit + 1 }, "ValueLimit"},
		"long timeout":           {func(c *Config[string]) { c.Origin.Timeout = time.Hour + 1 }, "Origin.Timeout"},
		"odd origin, but right": {func(c *Config[string]) {
			c.Origin = Origin{Concurrency: 1, MinConcurrency: 1, Rate: 0.001, Burst: 1, QueueInterval: -1, Breaker: Breaker{Failures: -1}, Retry: Retry{Budget: -1}}
		}, ""},
		"negative cap":         {func(c *Config[string]) { c.Origin.Concurrency = -7 }, "Origin.Concurrency"},
		"floor over the cap":   {func(c *Config[string]) { c.Origin.Concurrency, c.Origin.MinConcurrency = 4, 5 }, "Origin.MinConcurrency"},
		"negative floor":       {func(c *Config[string]) { c.Origin.MinConcurrency = -1 }, "Origin.MinConcurrency"},
		"negative rate":        {func(c *Config[string]) { c.Origin.Rate = -1 }, "Origin.Rate"},
		"rate not a number":    {func(c *Config[string]) { c.Origin.Rate = math.NaN() }, "Origin.Rate"},
		"endless rate":         {func(c *Config[string]) { c.Origin.Rate = math.Inf(1) }, "Origin.Rate"},
		"burst without rate":   {func(c *Config[string]) { c.Origin.Burst = 1 }, "Origin.Burst"},
		"negative burst":       {func(c *Config[string]) { c.Origin.Burst, c.Origin.Rate = -1, 1 }, "Origin.Burst"},
		"negative target":      {func(c *Config[string]) { c.Origin.QueueTarget = -1 }, "Origin.QueueTarget"},
		"long interval":        {func(c *Config[string]) { c.Origin.QueueInterval = time.Hour + 1 }, "Origin.QueueInterval"},
		"breaker over 1":       {func(c *Config[string]) { c.Origin.Breaker.Failures = 1.1 }, "Origin.Breaker.Failures"},
		"breaker not a number": {func(c *Config[string]) { c.Origin.Breaker.Failures = math.NaN() }, "Origin.Breaker.Failures"},
		"breaker minimum":      {func(c *Config[string]) { c.Origin.Breaker.Minimum = -1 }, "Origin.Breaker.Minimum"},
		"breaker window":       {func(c *Config[string]) { c.Origin.Breaker.Window = -1 }, "Origin.Breaker.Window"},
		"breaker pause":        {func(c *Config[string]) { c.Origin.Breaker.Pause = -1 }, "Origin.Breaker.Pause"},
		"breaker probes":       {func(c *Config[string]) { c.Origin.Breaker.Probes = -1 }, "Origin.Breaker.Probes"},
		"retry budget":         {func(c *Config[string]) { c.Origin.Retry.Budget = 2 }, "Origin.Retry.Budget"},
		"retries":              {func(c *Config[string]) { c.Origin.Retry.Most = 11 }, "Origin.Retry.Most"},
		"retry backoff":        {func(c *Config[string]) { c.Origin.Retry.Backoff = -1 }, "Origin.Retry.Backoff"},
		"negative patience":    {func(c *Config[string]) { c.Freshness.SoftTimeout = -1 }, "Freshness.SoftTimeout"},
		"patience in vain":     {func(c *Config[string]) { c.Freshness.SoftTimeout = 1 }, "Freshness.SoftTimeout"},
		"replicas":             {func(c *Config[string]) { c.Replicas = 1 }, ""},
		"too many replicas":    {func(c *Config[string]) { c.Replicas = 2 }, "Replicas"},
		"no replicas":          {func(c *Config[string]) { c.Replicas = -1 }, "Replicas"},
		"replicas, no pushes":  {func(c *Config[string]) { c.Replicas, c.HandoffRate = 1, -1 }, "Replicas"},
		"nil ByKey":            {func(c *Config[string]) { c.Loader = ByKey[string](nil) }, "Loader"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config[string]{Loader: load, Freshness: Freshness{TTL: time.Minute}}
			x.change(&cfg)
			c, err := New(cfg)
			if err == nil {
				if _, err := c.Get(t.Context(), "k"); err != nil {
					t.Error(err)
				}
				if err := c.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if (err != nil) != (x.want != "") || err != nil && !strings.Contains(err.Error(), x.want+" ") {
				t.Errorf("New: %v, want an error with %q", err, x.want)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	c := open(t, Config[string]{
		Namespace: "product", Freshness: Freshness{TTL: 2 * time.Second},
		Loader: ByKey(func(context.Context, string) (string, error) { return "v", nil }),
	})
	want := Freshness{TTL: 2 * time.Second, NegativeTTL: 2 * time.Second, ErrorTTL: time.Second, NearTTL: time.Second, Jitter: 0.1, RefreshAhead: 1}
	if got := c.Freshness(); got != want {
		t.Errorf("freshness %+v, want %+v", got, want)
	}
	if c.cfg.Origin != (Origin{}).withDefaults() || c.own.Config.ValueLimit != DefaultValueLimit ||
		(Config[string]{}).withDefaults().NearBytes != DefaultNearBytes || c.cfg.OwnedBytes != DefaultOwnedBytes || c.cfg.InvalidateTimeout != DefaultInvalidateTimeout {
		t.Errorf("config %+v", c.cfg)
	}
	if c.Namespace() != "product" {
		t.Error(c.Namespace())
	}
}

// A cache has every setting of its Config that does not depend on V.
func TestSettingsAreComplete(t *testing.T) {
	var cfg Config[string]
	from := reflect.ValueOf(&cfg).Elem()
	dependent := []string{"Loader", "BatchLoader", "Codec", "ServeLoaded", "Clone"} // of V
	onlyForNew := []string{"NearBytes", "Tracer", "Seed", "SharedOrigin"}
	for i := range from.NumField() {
		field := from.Type().Field(i)
		if !field.IsExported() || slices.Contains(dependent, field.Name) || slices.Contains(onlyForNew, field.Name) {
			continue
		}
		switch v := from.Field(i); v.Kind() {
		case reflect.String:
			v.SetString("x")
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Int, reflect.Int64:
			v.SetInt(7)
		case reflect.Uint8:
			v.SetUint(1)
		case reflect.Struct:
			v.Field(0).SetInt(7)
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
		case reflect.Interface:
			v.Set(reflect.ValueOf(tracedCluster{}))
		case reflect.Func:
			v.Set(reflect.ValueOf(time.Now))
		default:
			t.Fatalf("%s is a %v: set it here", field.Name, v.Kind())
		}
		if to := reflect.ValueOf(cfg.options()).FieldByName(field.Name); !to.IsValid() {
			if _, ok := reflect.TypeFor[owner.Config]().FieldByName(field.Name); !ok { // which are looked at below
				t.Errorf("neither options nor the owner have %s", field.Name)
			}
		} else if to.IsZero() {
			t.Errorf("options do not get %s", field.Name)
		}
	}
	cfg.SharedOrigin = new(SharedOrigin)
	cfg.Codec = (Config[string]{}).withDefaults().Codec
	cfg.BatchLoader, cfg.Tracer, cfg.Seed = ByKeys(func(context.Context, []string) (map[string]string, error) { return nil, nil }), new(carrying), 7
	cfg.limits.Bytes, cfg.faulty = 1, func(x journal.Copies) journal.Copies { return x }
	cfg.Origin.Timeout, cfg.Origin.Retry = 7, Retry{Most: 7, Backoff: 7}
	c := &Cache[string]{calls: newCallTable[string]()}
	c.origin = newSharedOrigin("x", cfg.Origin, nil)
	c.near = new(near.Tier[nearEntry[string]])
	if to := reflect.ValueOf(c.settings(&cfg)); to.NumField() > 0 {
		for i := range to.NumField() {
			if to.Field(i).IsZero() {
				t.Errorf("the owner does not get %s", to.Type().Field(i).Name)
			}
		}
	}
	if got := c.settings(&cfg).Origin; got != (owner.OriginRules{Timeout: 7, Retry: owner.RetryRules{Most: 7, Backoff: 7}}) {
		t.Errorf("the owner gets %+v", got)
	}
}

func TestFreshnessInWords(t *testing.T) {
	f := Freshness{TTL: time.Minute, StaleWhileRevalidate: 5 * time.Minute, StaleIfError: time.Hour}
	want := "Fresh for 1m0s after its load began, then for 5m0s served stale while it is refreshed, for 1h0m0s if the origin fails; " +
		"never older than 1h1m0s; a near copy asks its owner again after 1s; not-found is remembered for 5s."
	if got := f.String(); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	f.MaxTTL = 2 * time.Hour
	want = "Fresh for 1m0s after its load began, then for 5m0s served stale while it is refreshed, for 1h0m0s if the origin fails; " +
		"a value may be given up to 2h0m0s of its own; never older than 3h0m0s; a near copy asks its owner again after 1s; not-found is remembered for 5s."
	if got := f.String(); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	want = "Fresh for 1m0s after its load began; never older than 1m0s."
	if got := (Freshness{TTL: time.Minute, NearTTL: -1, NegativeTTL: -1}).String(); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestSchemaTellsContractsApart(t *testing.T) {
	base := Config[string]{Freshness: Freshness{TTL: time.Minute}}.withDefaults()
	other := base
	other.NearBytes, other.Origin.Timeout, other.Freshness.Jitter = 1<<20, time.Hour, 0.5
	if base.schema() != other.schema() {
		t.Error("what a node may choose for itself is in the schema")
	}
	for i, change := range []func(*Freshness){
		func(f *Freshness) { f.TTL++ }, func(f *Freshness) { f.StaleWhileRevalidate++ }, func(f *Freshness) { f.StaleIfError++ },
		func(f *Freshness) { f.NegativeTTL++ }, func(f *Freshness) { f.ErrorTTL++ }, func(f *Freshness) { f.NearTTL++ },
		func(f *Freshness) { f.MaxTTL = 2 * time.Minute },
	} {
		other := base
		change(&other.Freshness)
		if base.schema() == other.schema() {
			t.Errorf("change %d is not in the schema", i)
		}
	}
	ints := Config[int]{Freshness: Freshness{TTL: time.Minute}}.withDefaults()
	if base.schema() == ints.schema() {
		t.Error("the type is not in the schema")
	}
}

func TestErrorTexts(t *testing.T) {
	cause := errors.New("no route")
	for _, x := range []struct {
		err  error
		want string
	}{
		{&FillError{Namespace: "product", Key: "sku\n1", Owner: "n1", Err: cause}, `weir: fill of product "sku\n1" at n1: no route`},
		{&PanicError{Value: cause}, "the loader panicked: no route"},
		{&OverloadedError{Reason: "full", RetryAfter: time.Second}, "weir: overloaded: full; retry after 1s"},
	} {
		if x.err.Error() != x.want {
			t.Errorf("got %q, want %q", x.err.Error(), x.want)
		}
	}
	if errors.Unwrap(&PanicError{Value: "text"}) != nil || !errors.Is(ErrTimeout, context.DeadlineExceeded) {
		t.Error("what the errors unwrap to")
	}
}

// TestNamelessCache checks that a cache without a Cluster and without a Namespace has a name wherever one is shown.
func TestNamelessCache(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log bytes.Buffer
		cfg := Config[string]{
			Loader:    ByKey(func(context.Context, string) (string, error) { return "", errDown }),
			Freshness: Freshness{TTL: time.Minute}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Origin: Origin{Breaker: Breaker{Failures: 0.1, Minimum: 1}},
		}
		c := open(t, cfg)
		_, err := c.Get(t.Context(), "k")
		if err == nil || err.Error() != `weir: fill of default "k": `+errDown.Error() {
			t.Errorf("Get: %v", err)
		}
		if _, err := c.GetMany(t.Context(), []string{"k", "l"}); err == nil || !strings.Contains(err.Error(), "default") {
			t.Errorf("GetMany: %v", err)
		}
		synctest.Wait()
		if !strings.Contains(log.String(), "namespace=default") {
			t.Errorf("the log names no cache: %s", &log)
		}
		if name := c.Namespace(); name != DefaultNamespace {
			t.Errorf("its name is %q", name)
		}
	})
}

// Constants that must be the same in two packages. Those that differ do not compile.
var (
	_ [0]struct{} = [MaxInvalidateTimeout - owner.LongestInvalidate]struct{}{}
	_ [0]struct{} = [Bypass - WhenIsolated(owner.IsolatedBypasses)]struct{}{}
	_ [0]struct{} = [Fail - WhenIsolated(owner.IsolatedFails)]struct{}{}
	_ [0]struct{} = [SourceOwned - SourceNear - counters.Owned]struct{}{}
	_ [0]struct{} = [SourceFill - SourceNear - counters.Fill]struct{}{}
	_ [0]struct{} = [AnyAge - owner.AnyAge]struct{}{}
	_             = map[bool]struct{}{false: {}, DefaultNamespace == hotkeys.Unnamed: {}}
)
