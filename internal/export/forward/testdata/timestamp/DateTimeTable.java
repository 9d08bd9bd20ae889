import java.time.Instant;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.util.Locale;

/**
 * Prints what java.time makes of patterns: time, pattern, and "=" with the text, or "!" for a pattern it refuses.
 * To make the table anew: java DateTimeTable.java > table.txt (the committed one is of JDK 17).
 * B, day periods in words, is not in it: Java 8 does not know it, and its texts have spaces.
 */
final class DateTimeTable {
    private static final String[] TIMES = {
        "2026-11-25T06:52:19.123456789Z", "2024-12-28T23:59:59.999Z", "2024-12-29T00:00:00Z", "2024-12-31T12:00:00Z",
        "2025-01-01T00:00:00Z", "2025-01-04T01:02:03.004005006Z", "2025-01-05T13:00:00Z", "2026-12-26T11:59:00Z",
        "2026-12-27T00:30:00Z", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z", "2027-01-02T12:34:56Z",
        "2027-01-03T21:00:00.1Z", "2028-02-29T18:30:00Z", "2028-12-31T06:00:00Z", "2000-01-01T00:00:00Z",
        "1999-12-31T23:00:00Z", "2022-01-01T05:00:00Z", "2022-05-09T15:16:17Z", "2023-09-30T10:00:00Z",
        "2024-03-01T00:00:01Z", "2025-08-31T22:22:22Z",
    };
    private static final String LETTERS = "GuyYDMLdQqwWEecFahKkHmsSAnNgVvzOXxZ";
    private static final String[] DATES = {
        "yy/yyyy/YY/YYYY/uu/uuuu", "D/DDD/M/MM/MMM/MMMM/d/dd", "Q/QQQ/QQQQ/w/ww/W/F", "E/EEEE/e/ee/c", "a/h/K/k/H/m/s",
        "SSSSSSSSS/A/n/N/g",
    };
    private static final String[] OTHERS = {
        "yyyy/MM/dd", "YYYY/MM/dd", "uuuu/DDD/HHmmss", "yyyyMMdd'T'HHmmss", "yyyy-MM-dd_HH.mm.ss.SSS", "YYYY/ww/e",
        "''yy''", "'it''s'/dd", "[yyyy][/MM]", "[yyyy", "hh/a", "'unit 7'/yyyy", "yyyy{", "yyyy}", "yyyy#", "'open", "yyyy]",
        "b", "C", "f", "i", "I", "j", "J", "l", "o", "p", "P", "r", "R", "t", "T", "U", "hello", "yyyy/bb",
    };

    public static void main(String[] args) {
        for (char c : LETTERS.toCharArray()) {
            for (int n : new int[] {1, 2, 3, 4, 5, 6, 9, 10, 19}) {
                print(TIMES[0], String.valueOf(c).repeat(n));
            }
        }
        for (String p : OTHERS) {
            print(TIMES[0], p);
        }
        for (String time : TIMES) {
            for (String p : DATES) {
                print(time, p);
            }
        }
    }

    private static void print(String time, String pattern) {
        String out;
        try {
            DateTimeFormatter formatter = DateTimeFormatter.ofPattern(pattern, Locale.US);
            out = "=" + formatter.format(Instant.parse(time).atZone(ZoneId.of("UTC")));
        } catch (RuntimeException e) {
            out = "!";
        }
        System.out.println(time + "\t" + pattern + "\t" + out);
    }
}
