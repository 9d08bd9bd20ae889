package s3_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leat-io/leat/internal/blob/blobtest"
	leats3 "github.com/leat-io/leat/internal/blob/s3"
	"github.com/leat-io/leat/internal/record"
	"github.com/leat-io/leat/internal/testenv"
)

// The policies of the guide, as bucket policies of a real server, are enough for what the guide says, and for no
// more than their prefix.
func TestPoliciesOfTheGuide(t *testing.T) {
	g := blobtest.StartGateway(t)
	guide, err := os.ReadFile(filepath.Join(testenv.ModuleRoot(t), "docs", "guide", "object-stores.md"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, block := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(string(guide), -1) {
		if !strings.Contains(block[1], `"Statement"`) {
			continue
		}
		n++
		user := "user-" + string(rune('a'+n))
		c := settings(g)
		admin := open(t, c, nil)
		g.AddUser(user, "secret-of-"+user)
		policy := bucketPolicy(t, block[1], user, g.Bucket)
		_, err := admin.Client().PutBucketPolicy(t.Context(), &s3.PutBucketPolicyInput{Bucket: &g.Bucket, Policy: &policy})
		if err != nil {
			t.Fatalf("%v\n%s", err, policy)
		}
		c.AccessKey, c.SecretKey, c.Prefix = user, leats3.Secret("secret-of-"+user), "plant-7/"
		s := open(t, c, stateDir(t))
		for _, size := range []int{1000, partSize + 1} {
			key := user + "/object"
			if size > partSize {
				key += "-large"
			}
			blobtest.MustPut(t, s, key, blobtest.Bytes(1, size))
			blobtest.MustPut(t, s, key, blobtest.Bytes(1, size))
			if strings.Contains(policy, "s3:GetObject") {
				blobtest.MustRead(t, s, key)
				if err := s.Delete(t.Context(), key); err != nil {
					t.Error(err)
				}
			}
		}
		c.Prefix = "elsewhere/"
		err = open(t, c, nil).Put(t.Context(), blobtest.Upload("k", []byte("x")))
		blobtest.WantKind(t, err, record.Denied, "object-stores.md")
	}
	if n != 3 {
		t.Errorf("%d policies found, want 3", n)
	}
}

// bucketPolicy turns an identity's policy into one of the bucket for that user.
func bucketPolicy(t *testing.T, text, user, bucket string) string {
	t.Helper()
	var policy struct {
		Version   string
		Statement []map[string]any
	}
	if err := json.Unmarshal([]byte(strings.ReplaceAll(text, "my-lake", bucket)), &policy); err != nil {
		t.Fatal(err)
	}
	for _, s := range policy.Statement {
		s["Principal"] = map[string]any{"AWS": []string{user}}
	}
	out, err := json.Marshal(policy)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
