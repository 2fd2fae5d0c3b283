package events_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/events"
)

// show writes events as lines: authority, kind, key, version.
func show(m events.Message) string {
	var b strings.Builder
	for _, e := range m.Events {
		r := e.Record
		fmt.Fprintf(&b, "%s %s %q", e.Authority, r.Kind, r.Key)
		if r.Recursive {
			b.WriteString(" all")
		}
		if !r.Fingerprint.IsZero() {
			fmt.Fprintf(&b, " %s", r.Fingerprint)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func s3(source, event, key, rest string) string {
	k, _ := json.Marshal(key)
	return `{"Records":[{"eventVersion":"2.1","eventSource":"` + source + `","awsRegion":"eu-central-1","eventTime":"2026-11-05T10:11:12.345Z","eventName":"` + event +
		`","userIdentity":{"principalId":"AWS:AIDA"},"s3":{"s3SchemaVersion":"1.0","configurationId":"c","bucket":{"name":"b","ownerIdentity":{"principalId":"A3"},"arn":"arn:aws:s3:::b"},"object":{"key":` + string(k) + rest + `}}}]}`
}

const whole = `,"size":5,"eTag":"0123456789abcdef0123456789abcdef","versionId":"v1","sequencer":"0055AED6DCD90281E5"`

func TestParse(t *testing.T) {
	t.Parallel()
	const v = ` s3:5:0123456789abcdef0123456789abcdef;;none`
	for name, tt := range map[string]struct{ in, want string }{
		"s3 put":                     {s3("aws:s3", "ObjectCreated:Put", "a/b.txt", whole), `s3://b content "/a/b.txt"` + v},
		"s3 space as plus":           {s3("aws:s3", "ObjectCreated:Copy", "a/my+file.txt", whole), `s3://b content "/a/my file.txt"` + v},
		"s3 escaped plus":            {s3("aws:s3", "ObjectCreated:Put", "a%2Bb%2525", whole), `s3://b content "/a+b%25"` + v},
		"s3 escaped slash":           {s3("aws:s3", "ObjectCreated:CompleteMultipartUpload", "a%2Fb%C3%A4", whole), `s3://b content "/a/bä"` + v},
		"s3 no size":                 {s3("aws:s3", "ObjectCreated:Put", "f", `,"eTag":"e"`), `s3://b content "/f"`},
		"s3 no etag":                 {s3("aws:s3", "ObjectCreated:Put", "f", `,"size":5`), `s3://b content "/f"`},
		"s3 size as text":            {s3("aws:s3", "ObjectCreated:Put", "f", `,"size":"5","eTag":"0123456789abcdef0123456789abcdef"`), `s3://b content "/f"` + v},
		"s3 size of another type":    {s3("aws:s3", "ObjectCreated:Put", "f", `,"size":{},"eTag":"e"`), `s3://b content "/f"`},
		"s3 delete":                  {s3("aws:s3", "ObjectRemoved:Delete", "a/b/c", `,"eTag":"e","size":5`), "s3://b delete \"/a/b/c\"\ns3://b content \"/a/b\"\ns3://b content \"/a\""},
		"s3 delete marker":           {s3("aws:s3", "ObjectRemoved:DeleteMarkerCreated", "c", ""), `s3://b delete "/c"`},
		"s3 expired":                 {s3("aws:s3", "LifecycleExpiration:Delete", "c", ""), `s3://b delete "/c"`},
		"s3 tags":                    {s3("aws:s3", "ObjectTagging:Put", "f", whole), `s3://b content "/f"`},
		"s3 event of the future":     {s3("aws:s3", "ObjectFolded:Twice", "f", whole), `s3://b content "/f"`},
		"s3 directory marker":        {s3("aws:s3", "ObjectCreated:Put", "a/d/", `,"size":0,"eTag":"e"`), `s3://b mkdir "/a/d"`},
		"s3 directory marker gone":   {s3("aws:s3", "ObjectRemoved:Delete", "a/d/", ""), "s3://b content \"/a/d\"\ns3://b content \"/a\""},
		"s3 empty segment":           {s3("aws:s3", "ObjectCreated:Put", "a/b//c", whole), `s3://b subtree "/a/b" all`},
		"s3 dots":                    {s3("aws:s3", "ObjectCreated:Put", "a/../c", whole), `s3://b subtree "/a" all`},
		"s3 control character":       {s3("aws:s3", "ObjectCreated:Put", "a/b%00c", whole), `s3://b subtree "/a" all`},
		"s3 not UTF-8":               {s3("aws:s3", "ObjectCreated:Put", "a/b%FF", whole), `s3://b subtree "/a" all`},
		"s3 long segment":            {s3("aws:s3", "ObjectCreated:Put", "a/"+strings.Repeat("x", 256), whole), `s3://b subtree "/a" all`},
		"s3 leading slash":           {s3("aws:s3", "ObjectCreated:Put", "/a/b", whole), `s3://b content "/a/b"` + v},
		"s3 nothing clean":           {s3("aws:s3", "ObjectCreated:Put", "../b", whole), `s3://b subtree "/" all`},
		"s3 own temporary":           {s3("aws:s3", "ObjectCreated:Put", "a/.freshet.tmp1", whole), ""},
		"aws but not encoded":        {s3("aws:s3", "ObjectCreated:Put", "a b+c", whole), "s3://b content \"/a b c\"" + v + "\ns3://b content \"/a b+c\"" + v},
		"aws but a bare percent":     {s3("aws:s3", "ObjectCreated:Put", "100%", whole), `s3://b content "/100%"` + v},
		"versitygw plus":             {s3("aws:s3", "s3:ObjectCreated:Put", "a+b", `,"size":5,"eTag":"\"0123456789abcdef0123456789abcdef\""`), "s3://b content \"/a b\"" + v + "\ns3://b content \"/a+b\"" + v},
		"versitygw delete":           {s3("aws:s3", "s3:ObjectRemoved:Delete", "d/x y", ""), "s3://b delete \"/d/x y\"\ns3://b content \"/d\""},
		"another server, encoded":    {s3("minio:s3", "s3:ObjectCreated:Put", "a%2Fb", whole), "s3://b content \"/a/b\"" + v + "\ns3://b content \"/a%2Fb\"" + v},
		"another server, plain":      {s3("ceph:s3", "ObjectCreated:Put", "a/b", whole), `s3://b content "/a/b"` + v},
		"bucket only in the ARN":     {strings.Replace(strings.Replace(s3("aws:s3", "ObjectCreated:Put", "f", whole), `"name":"b",`, "", 1), "s3:::b", "s3:::b/f", 1), `s3://b content "/f"` + v},
		"eventbridge":                {eventBridge("Object Created", "a/b+c %41", `,"size":5,"etag":"0123456789abcdef0123456789abcdef"`), `s3://b content "/a/b+c %41"` + v},
		"eventbridge delete":         {eventBridge("Object Deleted", "x/b", ""), "s3://b delete \"/x/b\"\ns3://b content \"/x\""},
		"eventbridge tags":           {eventBridge("Object Tags Added", "x", `,"etag":"e"`), `s3://b content "/x"`},
		"eventbridge, in an array":   {"[" + eventBridge("Object Tags Added", "x", "") + "," + eventBridge("Object Deleted", "y", "") + "]", "s3://b content \"/x\"\ns3://b delete \"/y\""},
		"sns":                        {sns(s3("aws:s3", "ObjectCreated:Put", "a+b", whole)), `s3://b content "/a b"` + v},
		"sns, eventbridge":           {sns(eventBridge("Object Deleted", "y", "")), `s3://b delete "/y"`},
		"pubsub finalize":            {pubSub("OBJECT_FINALIZE", "a/b+c%20d", resource), `gs://bkt content "/a/b+c%20d" gcs:1700000000000001;;mg1`},
		"pubsub without payload":     {pubSub("OBJECT_FINALIZE", "a", ""), `gs://bkt content "/a"`},
		"pubsub of another object":   {pubSub("OBJECT_FINALIZE", "a", strings.Replace(resource, `"name":"NAME"`, `"name":"other"`, 1)), `gs://bkt content "/a"`},
		"pubsub metadata":            {pubSub("OBJECT_METADATA_UPDATE", "a", strings.Replace(resource, `"metageneration":"1"`, `"metageneration":"7"`, 1)), `gs://bkt content "/a" gcs:1700000000000001;;mg7`},
		"pubsub delete":              {pubSub("OBJECT_DELETE", "d/a", resource), "gs://bkt delete \"/d/a\"\ngs://bkt content \"/d\""},
		"pubsub overwritten":         {strings.Replace(pubSub("OBJECT_DELETE", "d/a", resource), `"bucketId"`, `"overwrittenByGeneration":"17","bucketId"`, 1), `gs://bkt content "/d/a"`},
		"pubsub future":              {pubSub("OBJECT_FROZEN", "a", resource), `gs://bkt content "/a"`},
		"pubsub pulled":              {`{"receivedMessages":[{"ackId":"x",` + pubSub("OBJECT_DELETE", "a", "")[1:] + `]}`, `gs://bkt delete "/a"`},
		"gcs object by itself":       {strings.ReplaceAll(resource, "NAME", "d/a"), "gs://bkt delete \"/d/a\"\ngs://bkt content \"/d\""},
		"eventarc":                   {`{"specversion":"1.0","type":"google.cloud.storage.object.v1.finalized","source":"//storage.googleapis.com/projects/_/buckets/bkt","subject":"objects/x y","id":"1","data":` + strings.ReplaceAll(resource, "NAME", "x y") + `}`, `gs://bkt content "/x y" gcs:1700000000000001;;mg1`},
		"eventarc, no data":          {`{"specversion":"1.0","type":"google.cloud.storage.object.v1.deleted","source":"//storage.googleapis.com/projects/_/buckets/bkt","subject":"objects/x","id":"1"}`, `gs://bkt delete "/x"`},
		"event grid":                 {"[" + grid("BlobCreated", "a/b c", "a/b%20c", "") + "]", "abfs://cont@acct content \"/a/b c\" azure:5:0x8D4BCC2E4835CD0;;none\nabfs://cont@acct content \"/a/b%20c\" azure:5:0x8D4BCC2E4835CD0;;none"},
		"event grid delete":          {"[" + grid("BlobDeleted", "a/b", "a/b", "") + "," + grid("BlobDeleted", "a/c", "a/c", "") + "]", "abfs://cont@acct delete \"/a/b\"\nabfs://cont@acct content \"/a\"\nabfs://cont@acct delete \"/a/c\""},
		"event grid tier":            {grid("BlobTierChanged", "b", "b", ""), `abfs://cont@acct content "/b"`},
		"event grid directory":       {grid("DirectoryDeleted", "a/d", "a/d", `"recursive":"true",`), "abfs://cont@acct delete \"/a/d\" all\nabfs://cont@acct content \"/a\""},
		"event grid new directory":   {grid("DirectoryCreated", "d", "d", ""), `abfs://cont@acct subtree "/d" all`},
		"event grid rename":          {grid("DirectoryRenamed", "n", "", `"sourceUrl":"https://acct.dfs.core.windows.net/cont/o","destinationUrl":"https://acct.dfs.core.windows.net/cont/n",`), "abfs://cont@acct subtree \"/o\" all\nabfs://cont@acct subtree \"/n\" all"},
		"event grid, no subject":     {`{"eventType":"Microsoft.Storage.BlobDeleted","data":{"url":"https://Acct.blob.core.windows.net/cont/x"}}`, `abfs://cont@acct delete "/x"`},
		"cloud events of event grid": {`{"specversion":"1.0","type":"Microsoft.Storage.BlobCreated","source":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/acct","subject":"/blobServices/default/containers/cont/blobs/x","id":"i","time":"2026-11-05T10:11:12.1234567Z","data":{"eTag":"0x1","contentLength":7,"url":"https://acct.blob.core.windows.net/cont/x"}}`, `abfs://cont@acct content "/x" azure:7:0x1;;none`},
	} {
		m, err := events.Parse([]byte(tt.in))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := strings.TrimSuffix(show(m), "\n"); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, tt.want)
		}
		if m.Unread != 0 {
			t.Errorf("%s: %d unread: %s", name, m.Unread, m.Why)
		}
	}
}

func eventBridge(typ, key, rest string) string {
	return `{"version":"0","id":"17793124","detail-type":"` + typ + `","source":"aws.s3","account":"1","time":"2026-11-05T10:11:12Z","region":"ca-central-1","resources":["arn:aws:s3:::b"],
		"detail":{"version":"0","bucket":{"name":"b"},"object":{"key":"` + key + `"` + rest + `,"sequencer":"006"},"request-id":"N","requester":"1","source-ip-address":"1.2.3.4","reason":"PutObject"}}`
}

func sns(message string) string {
	text, _ := json.Marshal(message)
	return `{"Type":"Notification","MessageId":"m","TopicArn":"arn:aws:sns:eu-central-1:1:t","Subject":"Amazon S3 Notification","Message":` + string(text) + `,"Timestamp":"2026-11-05T10:11:12.345Z","SignatureVersion":"1"}`
}

const resource = `{"kind":"storage#object","id":"bkt/NAME/1700000000000001","name":"NAME","bucket":"bkt","generation":"1700000000000001","metageneration":"1","size":"5","updated":"2026-11-05T10:11:12.345Z"}`

func pubSub(event, object, data string) string {
	data = base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(data, "NAME", object)))
	return `{"message":{"attributes":{"bucketId":"bkt","objectId":"` + object + `","eventType":"` + event + `","objectGeneration":"1700000000000001","eventTime":"2026-11-05T10:11:12.345678Z","payloadFormat":"JSON_API_V1"},"data":"` + data + `","messageId":"7","publishTime":"2026-11-05T10:11:12Z"},"subscription":"projects/p/subscriptions/s"}`
}

func grid(event, subject, url, data string) string {
	return `{"topic":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/Acct","subject":"/blobServices/default/containers/cont/blobs/` + subject + `","eventType":"Microsoft.Storage.` + event +
		`","eventTime":"2026-11-05T10:11:12.1234567Z","id":"i","data":{` + data + `"api":"PutBlockList","eTag":"0x8D4BCC2E4835CD0","contentLength":5,"blobType":"BlockBlob","url":"https://acct.blob.core.windows.net/cont/` + url + `","sequencer":"0"},"dataVersion":"","metadataVersion":"1"}`
}

func TestParseTellsWhen(t *testing.T) {
	t.Parallel()
	m, err := events.Parse([]byte(s3("aws:s3", "ObjectRemoved:Delete", "a/b", "")))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range m.Events {
		if want := time.Date(2026, 11, 5, 10, 11, 12, 345e6, time.UTC); !e.Record.PublishedAt.Equal(want) {
			t.Errorf("%+v, want %v", e, want)
		}
	}
}

// The version in an event must be the one that a listing gives.
func TestParseVersionIsThatOfAListing(t *testing.T) {
	t.Parallel()
	m, err := events.Parse([]byte(s3("aws:s3", "ObjectCreated:CompleteMultipartUpload", "f", `,"size":7,"eTag":"d41d8cd98f00b204e9800998ecf8427e-2"`)))
	if err != nil || len(m.Events) != 1 {
		t.Fatal(m, err)
	}
	if listed := fingerprint.S3(`"d41d8cd98f00b204e9800998ecf8427e-2"`, 7); !m.Events[0].Record.Fingerprint.Equal(listed) {
		t.Errorf("%v, want %v", m.Events[0].Record.Fingerprint, listed)
	}
}

func TestParseSkips(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		in      string
		skipped map[string]int
	}{
		"test event":     {`{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-11-05T10:11:12.345Z","Bucket":"b","RequestId":"5","HostId":"8"}`, map[string]int{events.SkipTest: 1}},
		"none":           {`{"Records":[]}`, nil},
		"own":            {s3("aws:s3", "ObjectCreated:Put", ".freshet.x", whole), map[string]int{events.SkipOwn: 1}},
		"other records":  {`{"Records":[{"eventSource":"aws:dynamodb"},{"Sns":{}}]}`, map[string]int{events.SkipForeign: 2}},
		"other bridge":   {`{"detail-type":"EC2 Instance State-change Notification","source":"aws.ec2","detail":{"state":"x"}}`, map[string]int{events.SkipForeign: 1}},
		"other s3 event": {`{"detail-type":"AWS API Call via CloudTrail","source":"aws.s3","detail":{"eventName":"PutObject"}}`, map[string]int{events.SkipForeign: 1}},
		"other pubsub":   {`{"message":{"data":"aGVsbG8=","messageId":"1"}}`, map[string]int{events.SkipForeign: 1}},
		"other azure":    {`[{"eventType":"Microsoft.Resources.ResourceWriteSuccess","data":{}},{"eventType":"Microsoft.Storage.BlobInventoryPolicyCompleted"}]`, map[string]int{events.SkipForeign: 2}},
		"sns goodbye":    {`{"Type":"UnsubscribeConfirmation","TopicArn":"a","Message":"bye","SubscribeURL":"https://x"}`, map[string]int{events.SkipHandover: 1}},
	} {
		m, err := events.Parse([]byte(tt.in))
		if err != nil || len(m.Events) != 0 || !maps.Equal(m.Skipped, tt.skipped) || m.Unread != 0 {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func TestParseHandshakes(t *testing.T) {
	t.Parallel()
	m, err := events.Parse([]byte(`[{"id":"2d1781af","topic":"/subscriptions/s","subject":"","data":{"validationCode":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6","validationUrl":"https://rp-eastus2.eventgrid.azure.net:553/x"},"eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","eventTime":"2026-11-05T10:11:12Z","metadataVersion":"1","dataVersion":"1"}]`))
	if err != nil || m.Validation != "512d38b6-c7b8-40c8-89fe-f46f9e9622b6" {
		t.Errorf("event grid: %+v, %v", m, err)
	}
	m, err = events.Parse([]byte(`{"Type":"SubscriptionConfirmation","MessageId":"1","Token":"2","TopicArn":"arn:aws:sns:x:1:t","Message":"You have chosen to subscribe","SubscribeURL":"https://sns.example.com/?Action=ConfirmSubscription","Timestamp":"2026-11-05T10:11:12Z"}`))
	if err != nil || m.Confirm != "https://sns.example.com/?Action=ConfirmSubscription" {
		t.Errorf("sns: %+v, %v", m, err)
	}
}

// What can't be made out is never passed over.
func TestParseCountsWhatItCannotRead(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"no bucket":         `{"Records":[{"eventName":"ObjectCreated:Put","s3":{"object":{"key":"k"}}}]}`,
		"no key":            `{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"}}}]}`,
		"another type":      `{"Records":[17]}`,
		"bucket not a name": `{"Records":[{"s3":{"bucket":{"name":"b\nc"},"object":{"key":"k"}}}]}`,
		"bridge":            `{"detail-type":"Object Created","source":"aws.s3","detail":{}}`,
		"pubsub":            `{"message":{"attributes":{"eventType":"OBJECT_FINALIZE","bucketId":"b"}}}`,
		"azure":             `{"eventType":"Microsoft.Storage.BlobCreated","subject":"x","data":17}`,
		"azure rename":      `{"eventType":"Microsoft.Storage.BlobRenamed","topic":"/storageAccounts/a","data":{"sourceUrl":"https://a.b/c/d"}}`,
	} {
		m, err := events.Parse([]byte(in))
		if err != nil || m.Unread != 1 || m.Why == "" {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	good := s3("aws:s3", "ObjectCreated:Put", "f", whole)
	m, err := events.Parse([]byte(strings.Replace(good, "[", "[17,", 1)))
	if err != nil || m.Unread != 1 || len(m.Events) != 1 {
		t.Errorf("the rest of the message: %+v, %v", m, err)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	one := `{"s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}`
	for name, in := range map[string]string{
		"nothing": "", "text": "hello", "number": "17", "null": "null", "object": "{}", "other": `{"hello":"world"}`, "cut off": `{"Records":[`,
		"records of another type": `{"Records":17}`,
		"sns of text":             sns("hello"),
		"sns in sns in sns":       sns(sns(sns(sns(`{"Records":[]}`)))),
		"arrays":                  `[[[[[[[]]]]]]]`,
		"huge":                    `{"Records":[],"x":"` + strings.Repeat("x", events.MaxBody) + `"}`,
		"many":                    `{"Records":[` + strings.Repeat(one+",", events.MaxRecords) + one + `]}`,
	} {
		if m, err := events.Parse([]byte(in)); !errors.Is(err, events.ErrSyntax) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func TestHooked(t *testing.T) {
	t.Parallel()
	place := ufs.Place{Authority: "gs://b", Key: "/p"}
	h := events.NewHooked(events.OptionWebhook, place)
	src, err := h.WatchSource()
	if err != nil || src.Complete || h.Place() != place {
		t.Errorf("%+v, %v", src, err)
	}
	if of, ok := events.IsWebhook(src.ID); !ok || of != "gs://b" {
		t.Errorf("%q is about %q", src.ID, of)
	}
	if _, ok := events.IsWebhook("sqs:https://x"); ok {
		t.Error("a queue is a webhook")
	}
	for _, err := range h.Watch(t.Context(), nil) {
		if !freshet.IsKind(err, freshet.KindUnsupported) {
			t.Errorf("watch: %v", err)
		}
	}
	if _, err := events.NewHooked("", place).WatchSource(); !freshet.IsKind(err, freshet.KindInvalid) {
		t.Errorf("without the option: %v", err)
	}
	table := ufs.OptionTable{events.Option()}
	if _, err := table.Check("gs", map[string]string{"events": "webhook"}); err != nil {
		t.Error(err)
	}
	if _, err := table.Check("gs", map[string]string{"events": "webhok"}); !freshet.IsKind(err, freshet.KindInvalid) || !strings.Contains(err.Error(), "'webhook'") {
		t.Errorf("misspelt: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, in := range []string{
		s3("aws:s3", "ObjectCreated:Put", "a%2Fb+c", whole), s3("", "s3:ObjectRemoved:Delete", "a//b", ""), sns(s3("aws:s3", "x", "d/", whole)),
		eventBridge("Object Created", "k", ""), pubSub("OBJECT_DELETE", "k/l", resource), "[" + grid("DirectoryRenamed", "a", "b", `"sourceUrl":"https://a.b/c/d",`) + "]", resource,
	} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := events.Parse(in)
		if err != nil {
			return
		}
		for _, e := range m.Events {
			if p, err := freshet.ParsePath(e.Record.Key); err != nil || string(p) != e.Record.Key {
				t.Fatalf("key %q: %v", e.Record.Key, err)
			}
			if e.Authority == "" || e.Record.Kind == 0 {
				t.Fatalf("%+v", e)
			}
		}
		if (m.Unread == 0) != (m.Why == "") {
			t.Fatalf("%d unread, why %q", m.Unread, m.Why)
		}
	})
}
