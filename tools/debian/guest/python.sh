# The tests that Python has for some of its modules.
for test in struct json re zlib float generators heapq bisect base64 csv textwrap difflib; do
  echo "$test"
  python3 -m unittest -q test.test_$test 2>&1 | sed 's/ in [0-9.]*s$//'
done
