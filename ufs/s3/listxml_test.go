package s3_test

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/freshet-io/freshet/ufs/s3"
)

// listResult is what encoding/xml makes of a list answer: the reference.
type listResult struct {
	XMLName     xml.Name `xml:"ListBucketResult"`
	IsTruncated bool
	Contents    []struct {
		Key, ETag    string
		Size         int64
		LastModified time.Time
	}
	CommonPrefixes        []struct{ Prefix string }
	NextContinuationToken string
}

func same(t *testing.T, doc []byte, ref listResult) {
	t.Helper()
	objects, prefixes, next, err := s3.ParsePage(doc)
	if err != nil {
		t.Fatalf("parse: %v\n%s", err, doc)
	}
	if len(objects) != len(ref.Contents) || len(prefixes) != len(ref.CommonPrefixes) {
		t.Fatalf("%d objects and %d prefixes, want %d and %d\n%s", len(objects), len(prefixes), len(ref.Contents), len(ref.CommonPrefixes), doc)
	}
	for i, got := range objects {
		want := ref.Contents[i]
		if got.Key != want.Key || got.ETag != want.ETag || got.Size != want.Size || !got.ModTime.Equal(want.LastModified) {
			t.Errorf("object %d = %+v, want %+v", i, got, want)
		}
	}
	for i, got := range prefixes {
		if got != ref.CommonPrefixes[i].Prefix {
			t.Errorf("prefix %d = %q, want %q", i, got, ref.CommonPrefixes[i].Prefix)
		}
	}
	if ref.IsTruncated && next != ref.NextContinuationToken {
		t.Errorf("next = %q, want %q", next, ref.NextContinuationToken)
	}
}

const exampleHead = `<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix></Prefix><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys>`

func TestParsePageAgreesWithEncodingXML(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"empty":      `<IsTruncated>false</IsTruncated></ListBucketResult>`,
		"one":        `<IsTruncated>false</IsTruncated><Contents><Key>a/b.txt</Key><LastModified>2026-11-05T10:11:12.000Z</LastModified><ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>17</Size><StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>`,
		"owner":      `<Contents><Key>k</Key><Owner><ID>x</ID><DisplayName>Key</DisplayName></Owner><LastModified>2026-01-31T23:59:59Z</LastModified><Size>0</Size></Contents></ListBucketResult>`,
		"entities":   `<Contents><Key>a&amp;b &lt;c&gt; &#34;d&#x22; &apos;é&#233;&#xe9; +%2B</Key><LastModified>2026-02-28T00:00:00.123456Z</LastModified><Size>1</Size></Contents></ListBucketResult>`,
		"cdata":      `<Contents><Key>x<![CDATA[<&amp;>]]>y<!-- no -->z</Key><LastModified>2026-02-28T00:00:00Z</LastModified><Size>1</Size></Contents></ListBucketResult>`,
		"truncated":  `<IsTruncated>true</IsTruncated><NextContinuationToken>1ue/+==</NextContinuationToken><CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes><CommonPrefixes><Prefix>b b/</Prefix></CommonPrefixes></ListBucketResult>`,
		"attributes": `<Contents a="x>y" b='"'><Key z="&lt;">k</Key><LastModified>2026-02-28T01:02:03+02:00</LastModified><Size>1</Size></Contents></ListBucketResult  >`,
		"self":       `<IsTruncated>false</IsTruncated><Marker/><Contents><Key/><LastModified>2026-02-28T01:02:03Z</LastModified><Size>1</Size><Owner/></Contents></ListBucketResult>`,
		"line ends":  "<Contents>\r\n<Key>a\r\nb&#13;\rc</Key><LastModified>2026-02-28T01:02:03Z</LastModified><Size>1</Size></Contents></ListBucketResult>\n<!-- end -->\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doc := []byte(exampleHead + body)
			var ref listResult
			if err := xml.Unmarshal(doc, &ref); err != nil {
				t.Fatalf("the reference refuses the example: %v", err)
			}
			same(t, doc, ref)
		})
	}
}

func TestParsePageRefuses(t *testing.T) {
	t.Parallel()
	for name, doc := range map[string]string{
		"empty":            "",
		"text":             "hello",
		"other root":       `<Error><Code>NoSuchBucket</Code></Error>`,
		"no token":         `<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>`,
		"doctype":          `<!DOCTYPE x [<!ENTITY a "b">]><ListBucketResult/>`,
		"unknown entity":   `<ListBucketResult><Contents><Key>&nbsp;</Key></Contents></ListBucketResult>`,
		"surrogate":        `<ListBucketResult><Contents><Key>&#xD800;</Key></Contents></ListBucketResult>`,
		"negative size":    `<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>`,
		"bad time":         `<ListBucketResult><Contents><Key>a</Key><LastModified>2026-02-30T00:00:00Z</LastModified></Contents></ListBucketResult>`,
		"no key":           `<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>`,
		"crossed":          `<ListBucketResult><Contents><Key>a</Contents></Key></ListBucketResult>`,
		"element in a key": `<ListBucketResult><Contents><Key>a<b/></Key></Contents></ListBucketResult>`,
		"trailing":         `<ListBucketResult></ListBucketResult><x/>`,
		"deep":             `<ListBucketResult>` + strings.Repeat("<a>", 50) + strings.Repeat("</a>", 50) + `</ListBucketResult>`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if objects, _, _, err := s3.ParsePage([]byte(doc)); err == nil {
				t.Errorf("accepted: %v", objects)
			}
		})
	}
}

// A document that lost its end must never pass for a shorter listing.
func TestParsePageRefusesEveryPrefix(t *testing.T) {
	t.Parallel()
	doc := listDocument(3)
	for n := range len(doc) - 1 {
		if _, _, _, err := s3.ParsePage(doc[:n]); err == nil {
			t.Fatalf("accepted the first %d of %d bytes", n, len(doc))
		}
	}
}

// listDocument returns an answer as servers write it.
func listDocument(n int) []byte {
	var b bytes.Buffer
	b.WriteString(exampleHead)
	b.WriteString("<IsTruncated>false</IsTruncated>")
	for i := range n {
		fmt.Fprintf(&b, "<Contents><Key>warehouse/table/day=2026-11-05/part-%08d.parquet</Key><LastModified>2026-11-05T10:11:%02d.000Z</LastModified>"+
			"<ETag>&quot;%032x&quot;</ETag><Size>%d</Size><StorageClass>STANDARD</StorageClass></Contents>", i, i%60, i, i*4096)
	}
	b.WriteString("</ListBucketResult>")
	return b.Bytes()
}

// FuzzParsePage checks arbitrary bytes: no panic, and where the reference
// understands the document too, both understand the same.
func FuzzParsePage(f *testing.F) {
	f.Add(listDocument(2))
	f.Add([]byte(exampleHead + `<CommonPrefixes><Prefix>a&#x2f;</Prefix></CommonPrefixes></ListBucketResult>`))
	f.Add([]byte(`<s:ListBucketResult xmlns:s="u"><s:Contents><s:Key><![CDATA[k]]></s:Key></s:Contents></s:ListBucketResult>`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		objects, prefixes, _, err := s3.ParsePage(doc)
		if err != nil || !utf8.Valid(doc) {
			return
		}
		var ref struct {
			XMLName  xml.Name `xml:"ListBucketResult"`
			Contents []struct {
				Key []string
			}
			CommonPrefixes []struct{ Prefix []string }
		}
		if xml.Unmarshal(doc, &ref) != nil {
			return
		}
		if len(objects) != len(ref.Contents) {
			t.Fatalf("%d objects, want %d", len(objects), len(ref.Contents))
		}
		for i, o := range objects {
			if keys := ref.Contents[i].Key; o.Key != keys[len(keys)-1] {
				t.Errorf("key %q, want %q", o.Key, keys)
			}
		}
		var want []string
		for _, p := range ref.CommonPrefixes {
			want = append(want, p.Prefix...)
		}
		if strings.Join(prefixes, "\x00") != strings.Join(want, "\x00") {
			t.Errorf("prefixes %q, want %q", prefixes, want)
		}
	})
}

// FuzzParsePageKeys checks that every key that XML can carry survives.
func FuzzParsePageKeys(f *testing.F) {
	f.Add("a b+%2B&<>\"'é\t\r\n", "日本/", int64(5))
	f.Fuzz(func(t *testing.T, key, prefix string, size int64) {
		var ref listResult
		ref.Contents = append(ref.Contents, struct {
			Key, ETag    string
			Size         int64
			LastModified time.Time
		}{key, `"x"`, max(0, size), time.Unix(max(0, size%1e9), 0).UTC()})
		ref.CommonPrefixes = append(ref.CommonPrefixes, struct{ Prefix string }{prefix})
		doc, err := xml.Marshal(ref)
		if err != nil {
			t.Skip(err)
		}
		var back listResult
		if err := xml.Unmarshal(doc, &back); err != nil {
			t.Skip(err) // a key that XML can't carry
		}
		same(t, doc, back)
	})
}

func BenchmarkParsePage(b *testing.B) {
	doc := listDocument(1000)
	b.SetBytes(int64(len(doc)))
	cpu := cpuTime(b)
	for b.Loop() {
		if _, _, _, err := s3.ParsePage(doc); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*1000/(cpuTime(b)-cpu).Seconds(), "keys/cpu-s")
}
