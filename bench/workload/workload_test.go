package workload

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// TestZetaIsYCSBs compares with YCSB's constant for the sum over ten billion items with 0.99.
func TestZetaIsYCSBs(t *testing.T) {
	const zetan = 26.46902820178302
	if got := zetaSum(ycsbItems, 0.99); math.Abs(got-zetan) > 1e-8 {
		t.Errorf("zeta is %.14f, YCSB's %.14f", got, zetan)
	}
	for _, theta := range []float64{0.7, 0.99, 1.2} {
		sum := 0.0
		for i := 1; i <= 300_000; i++ {
			sum += math.Pow(float64(i), -theta)
		}
		if got := zetaSum(300_000, theta); math.Abs(got-sum) > 1e-8 {
			t.Errorf("theta %v: %.12f, summed one by one %.12f", theta, got, sum)
		}
	}
}

// TestZipfFollowsItsDefinition compares the frequency of each of the first ranks with the definition: rank i has
// 1/i^theta of zeta.
func TestZipfFollowsItsDefinition(t *testing.T) {
	r := seeded(t)
	const draws, items = 400_000, 100_000
	for _, theta := range []float64{0.7, 0.99, 1.2} {
		z := NewZipf(items, theta, items)
		count := make([]float64, items)
		for range draws {
			count[z.rank(r)]++
		}
		zeta := zetaSum(items, theta)
		for _, top := range []int{1, 2, 10, 100, 1000, 10_000} {
			got := 0.0
			for _, c := range count[:top] {
				got += c / draws
			}
			// The formula is exact for two ranks and an approximation for the rest.
			want, slack := zetaSum(int64(top), theta)/zeta, 0.004
			if top > 2 {
				slack = 0.03
			}
			if math.Abs(got-want) > slack {
				t.Errorf("theta %v: the first %d ranks have %.4f of the draws, the definition gives %.4f", theta, top, got, want)
			}
		}
	}
}

func TestZipfScrambles(t *testing.T) {
	r := seeded(t)
	z := NewZipf(1000, 0.99, 0)
	count := make([]int, 1000)
	for range 100_000 {
		count[z.Next(r)]++
	}
	first := int(scramble(0) % 1000)
	if i := slices.Index(count, slices.Max(count)); i != first {
		t.Errorf("the most popular key is %d, rank 0 is folded onto %d", i, first)
	}
	if c := slices.Min(count); c == 0 {
		t.Error("a key of a thousand never came in 100,000 draws")
	}
	// YCSB's own Utils.fnvhash64 for 0, computed by hand: FNV-1a of eight zero bytes.
	h := uint64(0xCBF29CE484222325)
	for range 8 {
		h *= 1099511628211
	}
	if s := int64(h); s < 0 {
		h = uint64(-s)
	}
	if scramble(0) != h {
		t.Errorf("scramble(0) is %d, not %d", scramble(0), h)
	}
}

func TestSources(t *testing.T) {
	r := seeded(t)
	hot := 0
	for range 10_000 {
		if k := (Hot{Count: 10, Share: 0.5}).Next(r); k == 0 {
			hot++
		} else if k < 0 || k > 9 {
			t.Fatalf("key %d of 10", k)
		}
	}
	if hot < 4700 || hot > 5300 {
		t.Errorf("the hot key came %d times of 10,000, not about 5,000", hot)
	}
	s := &Scan{Count: 3}
	var got []int
	for range 7 {
		got = append(got, s.Next(nil))
	}
	if !slices.Equal(got, []int{0, 1, 2, 0, 1, 2, 0}) {
		t.Errorf("the scan went %v", got)
	}
	if n := MakeNames("k:", 3); !slices.Equal(n, Names{"k:00000000", "k:00000001", "k:00000002"}) {
		t.Errorf("the names are %q", n)
	}
}

func TestMix(t *testing.T) {
	r := seeded(t)
	var n [Many + 1]int
	for range 10_000 {
		n[Mix{Read: 8, Write: 1, Many: 1}.Next(r)]++
	}
	if n[Read] < 7700 || n[Read] > 8300 || n[Write] < 800 || n[Many] < 800 {
		t.Errorf("8 to 1 to 1 came as %v", n)
	}
	var zero Mix
	if zero.Next(r) != Read {
		t.Error("the zero Mix does not read")
	}
}

// TestBatch checks that the keys of a batch are different, whatever the source.
func TestBatch(t *testing.T) {
	r := seeded(t)
	z := NewZipf(100, 0.99, 0)
	for _, s := range []Source{z, Uniform(100), Hot{Count: 100, Share: 1}, &Scan{Count: 100}} {
		for _, n := range []int{1, 7, 100} {
			keys := Batch(s, r, 42, n, 100)
			if len(keys) != n || keys[0] != 42 {
				t.Fatalf("%T: %v for a batch of %d that begins with 42", s, keys, n)
			}
			slices.Sort(keys)
			if len(slices.Compact(slices.Clone(keys))) != n || keys[0] < 0 || keys[n-1] > 99 {
				t.Errorf("%T: %v", s, keys)
			}
		}
	}
}

func TestSizes(t *testing.T) {
	of := Lognormal(300, 8000, 1<<20, 7)
	var all []int
	for i := range 20_000 {
		all = append(all, of(i))
		if i < 100 && of(i) != all[i] {
			t.Fatalf("the value of key %d changes its length", i)
		}
	}
	slices.Sort(all)
	if m := all[len(all)/2]; m < 280 || m > 320 {
		t.Errorf("the median is %d, not about 300", m)
	}
	if p := all[len(all)*99/100]; p < 7000 || p > 9200 {
		t.Errorf("the 99th percentile is %d, not about 8,000", p)
	}
}

func BenchmarkZipf(b *testing.B) {
	z := NewZipf(1_000_000, 0.99, 0)
	r := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		z.Next(r)
	}
}
